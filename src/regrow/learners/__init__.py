"""A Learner: a network, its optimizer, and what an intervention may change."""
