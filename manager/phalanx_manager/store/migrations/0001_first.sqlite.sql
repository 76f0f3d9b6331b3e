-- Every step of a kernel is history, or is not.

CREATE TRIGGER kernel_moved AFTER UPDATE OF state ON kernel WHEN OLD.state <> NEW.state
BEGIN
    INSERT INTO kernel_history (kernel, from_state, to_state, at)
    VALUES (NEW.id, OLD.state, NEW.state, NEW.state_at);
END;
