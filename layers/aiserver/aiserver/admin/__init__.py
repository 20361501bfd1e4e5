"""What an operator does, with their own AWS credentials; there is no admin route to attack."""
