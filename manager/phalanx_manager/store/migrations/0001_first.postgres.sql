-- Every step of a kernel is history, or is not.

CREATE FUNCTION kernel_moved() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO kernel_history (kernel, from_state, to_state, at)
    VALUES (NEW.id, OLD.state, NEW.state, NEW.state_at);
    RETURN NULL;
END $$;

CREATE TRIGGER kernel_moved AFTER UPDATE OF state ON kernel
FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION kernel_moved();
