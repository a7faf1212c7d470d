"""What the paper found in the experiments that presets repeat: numbers that were read from a source, and no others."""

from app.schemas import Paper, PaperNumber

INFOMIN = "Tian et al.: What Makes for Good Views for Contrastive Learning? NeurIPS 2020, arXiv 2005.10243"
LIGHTLY = "CIFAR-10 benchmark of lightly; solo-learn's of 1000 epochs"
UNREAD = "No number of the paper stands here, since none was read from a source; the finding is told as it is remembered."


def _accuracy(label: str, value: float, setting: str, task: str = "linear") -> PaperNumber:
    return PaperNumber(label=label, task=task, metric="accuracy", value=value, setting=setting)


def _learned(space: str) -> Paper:
    finding = f"From {space}, views learned with some labels are better than those learned by labels alone, or without any."
    return Paper(source=f"{INFOMIN}, section 4.3", finding=finding, note=UNREAD)


_IMAGENET = "ImageNet, ResNet-50, linear classifier on frozen features"
_BENCHMARK = "ResNet-18 with a 3x3 stem, 200 epochs of 128; kNN with k = 200 and t = 0.1, best epoch on the test set"

PAPERS: dict[str, Paper] = {
    "fig3-patches": Paper(
        source=f"{INFOMIN}, section 4.1",
        finding="The farther apart two patches are, the less they share; accuracy over what they share is an inverted U.",
        note=UNREAD,
    ),
    "fig4-colour-spaces": Paper(
        source=f"{INFOMIN}, section 4.2",
        finding="The less the channels of a colour space share, the better the accuracy; YDbDr and Lab lie near the sweet spot.",
        note="No number of the paper stands here, since none was read from a source.",
    ),
    "frequency": Paper(
        source=f"{INFOMIN}, appendix",
        finding="Beyond the blur at which low and high frequencies share most, more blur traces an inverted U.",
        note=UNREAD,
    ),
    "fig5-crop": Paper(
        source=f"{INFOMIN}, figure 5",
        finding="Accuracy over the least scale of random crops is an inverted U.",
        numbers=[
            PaperNumber(label="0.2", task=None, metric="sweet_spot", value=0.2, setting="c of a random resized crop (c, 1)")
        ],
    ),
    "fig5-jitter": Paper(
        source=f"{INFOMIN}, figure 5",
        finding="Accuracy over the strength of colour jitter is an inverted U.",
        numbers=[
            PaperNumber(
                label="1",
                task=None,
                metric="sweet_spot",
                value=1.0,
                setting="x of ColorJitter(.8x, .8x, .8x, .2x), swept from .125 to 2.5",
            )
        ],
    ),
    "table2-moving-mnist": Paper(
        source=f"{INFOMIN}, section 4.4",
        finding="Views teach the factor that they share: digit, background or position. Where the background is among what they "
        "share, it shadows the others.",
        note=UNREAD,
    ),
    "fig7-learned-rgb": _learned("RGB"),
    "fig7-learned-ydbdr": _learned("YDbDr"),
    "infomin-ablation": Paper(
        source=f"{INFOMIN}, section 5",
        finding="The whole recipe, InfoMin Aug, with the jigsaw's branch beats the methods before it on ImageNet.",
        numbers=[
            _accuracy("all of it", value, f"{_IMAGENET}, {epochs} epochs", "classification")
            for epochs, value in ((100, 0.674), (200, 0.701), (800, 0.730))
        ],
        note="The paper has the recipe whole; what is left out in turn has no number of its own here.",
    ),
    "six-methods": Paper(
        source="The methods' papers; InfoMin: " + INFOMIN,
        finding="On ImageNet the methods come in the order InstDis, MoCo, PIRL, CPC v2, SimCLR, InfoMin.",
        numbers=[
            _accuracy("InstDis", 0.565, _IMAGENET),
            _accuracy("MoCo", 0.606, f"{_IMAGENET}, its first version"),
            _accuracy("PIRL", 0.636, _IMAGENET),
            _accuracy("CPC", 0.638, f"{_IMAGENET}, CPC v2"),
            _accuracy("SimCLR", 0.693, _IMAGENET),
            _accuracy("InfoMin", 0.730, f"{_IMAGENET}, 800 epochs"),
        ],
        note="CMC has no number here that was read from a source. Published budgets differ from method to method.",
    ),
    "cifar10-anchors": Paper(
        source=LIGHTLY,
        finding="What others publish of SimCLR and MoCo on CIFAR-10.",
        numbers=[
            _accuracy("SimCLR", 0.847, _BENCHMARK, "knn"),
            _accuracy("MoCo", 0.838, _BENCHMARK, "knn"),
            _accuracy("SimCLR", 0.907, "solo-learn: ResNet-18 with a 3x3 stem, 1000 epochs"),
            _accuracy("MoCo", 0.929, "solo-learn: MoCo v2+, ResNet-18 with a 3x3 stem, 1000 epochs"),
        ],
    ),
}
