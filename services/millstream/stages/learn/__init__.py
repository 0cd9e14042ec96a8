"""From labelled examples to an online model: predict, then learn, one example at a time in one total order."""
