"""A Learner: a network and its optimizer, which interventions may change."""
