"""From which inputs an answer came: Shapley values of a model's named inputs, against rows of its training set.

A set of inputs is worth the mean answer when these inputs are those of the request and all others those of a background row. The values of
all inputs add up to the answer less the mean answer of the background (`base`).
"""
