"""The online model of the reference domain: ordinary River, taught by labels one example at a time.

It reads every number of the feature service, and ``champion__logit``, so that it corrects the champion between two
trainings. Of a logistic regression, bagging, trees and forests this was best on the published data, and the quickest.

River's trees do not split by default where fewer than 1 in 100 events is positive: for those, set
``max_share_to_split=0.9999, min_branch_fraction=0.0001``. What draws random numbers needs a ``seed``.
"""

from river import linear_model, optim, preprocessing

model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.001))
