"""One pure function a check, from facts to a result; a module for each layer of a node."""
