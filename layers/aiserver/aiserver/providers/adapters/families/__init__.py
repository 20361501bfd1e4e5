"""Model families that several vendors serve."""
