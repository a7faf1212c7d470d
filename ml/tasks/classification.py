"""The linear probe."""

from jaxtyping import Int64
from torch import Generator, Tensor

from ml import spec, tasks
from ml.tasks import Answer, Features, logistic, standardised


@tasks.implements(spec.Classification)
def classification(task: spec.Classification, features: Features, labelled: Int64[Tensor, " L"], generator: Generator) -> Answer:
    """Predictions of multinomial logistic regression on features standardised over the training split."""
    train, test = standardised(features, labelled)
    y = features.train_targets[labelled]
    axes = logistic.principal(train)
    penalty = task.penalty or logistic.choose_penalty(axes, y, features.classes, generator)
    fitted = {"penalty": penalty}
    if task.protocol == "sgd":
        chances = generator.clone_state()  # so that the next draw of labels finds the same fifths as by the other protocol
        (weights, biases), fitted["learning_rate"] = logistic.fit_by_sgd(train, y, features.classes, penalty, chances)
    else:
        weights, biases = logistic.fit(axes, y, features.classes, penalty)
    return Answer((test.double() @ weights + biases).argmax(dim=1), fitted)
