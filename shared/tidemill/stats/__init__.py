"""Pure statistics: histograms with a fixed ruler, areas under the ROC curve."""
