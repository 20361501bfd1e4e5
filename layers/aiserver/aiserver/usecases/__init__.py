"""What the product does, one file a deed; none knows of HTTP or AWS."""
