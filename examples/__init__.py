"""Small programs to start from. Each runs in seconds, on the digits that come with sparsight."""
