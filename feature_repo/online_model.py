"""The online model of the reference domain: ordinary River, learnt from labels one example at a time."""

from river import linear_model, optim, preprocessing

model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.01))
