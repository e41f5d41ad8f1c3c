"""
Training and test set, standardized
===================================

Nearest neighbours compare all features at once, and in the wine data one feature counts in
thousands, another in tenths. In a pipeline the scaler learns mean and deviation from the training
set alone, and uses them for both sets.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from cybn.sklearn import StandardScaler

wine, cultivar = load_wine(return_X_y=True)
x, x_test, label, label_test = train_test_split(wine, cultivar, random_state=0)

raw = KNeighborsClassifier().fit(x, label)
scaled = make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(x, label)

print(f"as measured:  {raw.score(x_test, label_test):.0%} of the test set right")
print(f"standardized: {scaled.score(x_test, label_test):.0%}")

sets = {"as measured": x_test, "standardized": scaled["standardscaler"].transform(x_test)}
for panel, (title, values) in enumerate(sets.items(), start=1):
    axes = plt.subplot(1, 2, panel, title=title, ylabel="feature")
    axes.boxplot(values, orientation="horizontal")
plt.tight_layout()
plt.show()
