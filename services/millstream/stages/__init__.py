"""One package for each step of the data path; steps never import each other."""
