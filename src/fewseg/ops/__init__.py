"""Pure tensor functions: masks, pooling, similarity, resizing, geometry."""
