"""A model file from elsewhere: the contract that says what it takes and gives, the graph around it, and the version that is made of both."""
