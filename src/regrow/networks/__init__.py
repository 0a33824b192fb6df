"""Networks: functions of their parameters and an input."""
