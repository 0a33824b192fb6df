"""The claims that studies decide, by number, as the plasticity-injection talk and paper make them.

In our words, after E. Nikishin's talk of 15 September 2023 and arXiv 2305.15555, 2205.07802.
"""

CLAIMS = {
    1: "relying on early experience too much damages later learning, at worst for good",
    2: "re-initialising the last layers while the replay stays relieves it, across domains",
    3: "a reset also starts from a random policy, so what it gains may be exploration",
    4: "weight norm, feature rank, dead units and the like do not tell lost plasticity in full",
    5: "an injection leaves predictions and the number of trainable parameters as they were",
    6: "where injection improves learning, the agent was losing plasticity",
    7: "the effect is not uniform: clear gains in some games, none or a slight loss in others",
    8: "learning rate, replay ratio and network size set the pace of the loss, and of the gain",
    9: "injecting late keeps up with a larger network from the start, for less compute",
    10: "as a way to keep learning, injection does well beside shrink-and-perturb and resets",
    11: "how it does with several injections, other moments, or parts of it left out",
    12: "open: whether the loss can be prevented in the first place, and its causes",
}
