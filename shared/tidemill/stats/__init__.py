"""Pure statistics: histograms with a fixed ruler, areas under the ROC curve, scores of several classes."""
