"""Networks as scikit-learn estimators: started, penalised and thinned by the three verbs."""

from wellposed.sklearn.classifier import WellposedClassifier as WellposedClassifier
from wellposed.sklearn.regressor import WellposedRegressor as WellposedRegressor
