"""What `phalanx VERB` does; a module per noun, imported only when its verb is used."""
