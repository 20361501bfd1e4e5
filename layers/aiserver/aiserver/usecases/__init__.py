"""The product's operations, one application service per file; independent of HTTP and AWS."""
