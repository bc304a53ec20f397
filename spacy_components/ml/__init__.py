"""thinc architectures: parsers that score arcs, listeners on their parses, and layers that use them."""
