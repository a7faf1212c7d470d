"""The sources of what a sweep uses, as BibTeX."""

from collections.abc import Iterator
from typing import Any

from ml.spec import ExperimentSpec, SweepSpec

ALWAYS = ("infomin", "cpc", "poole", "twolines")
QUALITY = ("lidar", "rankme", "alignuniform", "alphareq")
METHODS = {
    "simclr": ("simclr",),
    "moco": ("moco", "mocov2"),
    "infomin": ("moco",),
    "inst_dis": ("instdis",),
    "cmc": ("cmc",),
    "pirl": ("pirl",),
    "cpc": ("cpcv2",),
}
VIEWS = {"color_split": ("cmc",), "patch_grid": ("cpcv2",)}
RECIPES = {"simclr": "simclr", "moco_v2": "mocov2", "byol": "byol"}
DATASETS = {
    "digits": ("digits",),
    "mnist": ("mnist",),
    "fashion_mnist": ("fashionmnist",),
    "cifar10": ("cifar",),
    "cifar100": ("cifar",),
    "stl10": ("stl10",),
    "imagenet": ("imagenet",),
    "tiny-imagenet-200": ("imagenet",),
    "moving_mnist": ("movingmnist", "mnist"),
    "div2k": ("div2k",),
    "bsds500": ("bsds500",),
}


def cited(sweep: SweepSpec) -> list[str]:
    """The entries of a sweep, each once, in the order of the alphabet."""
    return [ENTRIES[key] for key in sorted({*ALWAYS, *QUALITY, *_of_base(sweep.base), *_of_values(sweep)})]


def _of_base(spec: ExperimentSpec) -> Iterator[str]:
    names = [spec.dataset.name, *(task.dataset.name for task in spec.tasks if getattr(task, "dataset", None))]
    for name in names:
        yield from DATASETS.get(name, DATASETS["cifar"] if name.startswith("cifar10_") else ())
    if spec.encoder.kind.startswith("resnet"):
        yield "resnet"
    yield from _of_parts({"views": spec.views.model_dump(), "method": spec.method.model_dump()})
    yield from METHODS.get(spec.method.kind, ())


def _of_values(sweep: SweepSpec) -> Iterator[str]:
    """Of the methods and view recipes along the axis."""
    for value in sweep.axis.values:
        if sweep.axis.path in ("views", "method"):
            yield from _of_parts({sweep.axis.path: value})
        elif sweep.axis.path == "base":
            yield from _of_parts(value)


def _of_parts(parts: Any) -> Iterator[str]:
    views, method = (parts.get(name) for name in ("views", "method")) if isinstance(parts, dict) else (None, None)
    if isinstance(method, dict):
        yield from METHODS.get(str(method.get("kind")), ())
    if isinstance(views, dict):
        yield from VIEWS.get(str(views.get("kind")), ())
        recipe = views.get("before") if isinstance(views.get("before"), dict) else views
        if recipe.get("recipe") in RECIPES:
            yield RECIPES[recipe["recipe"]]
        if recipe.get("randaugment_n") or recipe.get("recipe") == "infomin":
            yield "randaugment"


ENTRIES = {
    "alignuniform": """@inproceedings{wang2020alignment,
  title = {Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere},
  author = {Wang, Tongzhou and Isola, Phillip},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}""",
    "alphareq": """@inproceedings{agrawal2022alphareq,
  title = {{$\\alpha$-ReQ}: Assessing Representation Quality in Self-Supervised Learning by Measuring Eigenspectrum Decay},
  author = {Agrawal, Kumar Krishna and Mondal, Arnab Kumar and Ghosh, Arna and Richards, Blake},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}""",
    "bsds500": """@article{arbelaez2011contour,
  title = {Contour Detection and Hierarchical Image Segmentation},
  author = {Arbel{\\'a}ez, Pablo and Maire, Michael and Fowlkes, Charless and Malik, Jitendra},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {33},
  number = {5},
  pages = {898--916},
  year = {2011}
}""",
    "byol": """@inproceedings{grill2020bootstrap,
  title = {Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning},
  author = {Grill, Jean-Bastien and others},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}""",
    "cifar": """@techreport{krizhevsky2009learning,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009}
}""",
    "cmc": """@inproceedings{tian2020contrastive,
  title = {Contrastive Multiview Coding},
  author = {Tian, Yonglong and Krishnan, Dilip and Isola, Phillip},
  booktitle = {European Conference on Computer Vision},
  year = {2020}
}""",
    "cpc": """@article{oord2018representation,
  title = {Representation Learning with Contrastive Predictive Coding},
  author = {van den Oord, Aaron and Li, Yazhe and Vinyals, Oriol},
  journal = {arXiv:1807.03748},
  year = {2018}
}""",
    "cpcv2": """@inproceedings{henaff2020data,
  title = {Data-Efficient Image Recognition with Contrastive Predictive Coding},
  author = {H{\\'e}naff, Olivier J. and others},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}""",
    "digits": """@misc{alpaydin1998optical,
  title = {Optical Recognition of Handwritten Digits},
  author = {Alpaydin, E. and Kaynak, C.},
  howpublished = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49},
  year = {1998}
}""",
    "div2k": """@inproceedings{agustsson2017ntire,
  title = {{NTIRE} 2017 Challenge on Single Image Super-Resolution: Dataset and Study},
  author = {Agustsson, Eirikur and Timofte, Radu},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition Workshops},
  year = {2017}
}""",
    "fashionmnist": """@article{xiao2017fashion,
  title = {Fashion-{MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  author = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  journal = {arXiv:1708.07747},
  year = {2017}
}""",
    "imagenet": """@article{russakovsky2015imagenet,
  title = {{ImageNet} Large Scale Visual Recognition Challenge},
  author = {Russakovsky, Olga and others},
  journal = {International Journal of Computer Vision},
  volume = {115},
  number = {3},
  pages = {211--252},
  year = {2015}
}""",
    "infomin": """@inproceedings{tian2020makes,
  title = {What Makes for Good Views for Contrastive Learning?},
  author = {Tian, Yonglong and Sun, Chen and Poole, Ben and Krishnan, Dilip and Schmid, Cordelia and Isola, Phillip},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020},
  note = {arXiv:2005.10243}
}""",
    "instdis": """@inproceedings{wu2018unsupervised,
  title = {Unsupervised Feature Learning via Non-Parametric Instance Discrimination},
  author = {Wu, Zhirong and Xiong, Yuanjun and Yu, Stella X. and Lin, Dahua},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2018}
}""",
    "lidar": """@inproceedings{thilak2024lidar,
  title = {{LiDAR}: Sensing Linear Probing Performance in Joint Embedding {SSL} Architectures},
  author = {Thilak, Vimal and others},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}""",
    "mnist": """@article{lecun1998gradient,
  title = {Gradient-Based Learning Applied to Document Recognition},
  author = {LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick},
  journal = {Proceedings of the IEEE},
  volume = {86},
  number = {11},
  pages = {2278--2324},
  year = {1998}
}""",
    "moco": """@inproceedings{he2020momentum,
  title = {Momentum Contrast for Unsupervised Visual Representation Learning},
  author = {He, Kaiming and Fan, Haoqi and Wu, Yuxin and Xie, Saining and Girshick, Ross},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}""",
    "mocov2": """@article{chen2020improved,
  title = {Improved Baselines with Momentum Contrastive Learning},
  author = {Chen, Xinlei and Fan, Haoqi and Girshick, Ross and He, Kaiming},
  journal = {arXiv:2003.04297},
  year = {2020}
}""",
    "movingmnist": """@inproceedings{srivastava2015unsupervised,
  title = {Unsupervised Learning of Video Representations using {LSTMs}},
  author = {Srivastava, Nitish and Mansimov, Elman and Salakhutdinov, Ruslan},
  booktitle = {International Conference on Machine Learning},
  year = {2015}
}""",
    "pirl": """@inproceedings{misra2020self,
  title = {Self-Supervised Learning of Pretext-Invariant Representations},
  author = {Misra, Ishan and van der Maaten, Laurens},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}""",
    "poole": """@inproceedings{poole2019variational,
  title = {On Variational Bounds of Mutual Information},
  author = {Poole, Ben and Ozair, Sherjil and van den Oord, Aaron and Alemi, Alexander A. and Tucker, George},
  booktitle = {International Conference on Machine Learning},
  year = {2019}
}""",
    "randaugment": """@inproceedings{cubuk2020randaugment,
  title = {{RandAugment}: Practical Automated Data Augmentation with a Reduced Search Space},
  author = {Cubuk, Ekin D. and Zoph, Barret and Shlens, Jonathon and Le, Quoc V.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}""",
    "rankme": """@inproceedings{garrido2023rankme,
  title = {{RankMe}: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by Their Rank},
  author = {Garrido, Quentin and Balestriero, Randall and Najman, Laurent and LeCun, Yann},
  booktitle = {International Conference on Machine Learning},
  year = {2023}
}""",
    "resnet": """@inproceedings{he2016deep,
  title = {Deep Residual Learning for Image Recognition},
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2016}
}""",
    "simclr": """@inproceedings{chen2020simple,
  title = {A Simple Framework for Contrastive Learning of Visual Representations},
  author = {Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}""",
    "stl10": """@inproceedings{coates2011analysis,
  title = {An Analysis of Single-Layer Networks in Unsupervised Feature Learning},
  author = {Coates, Adam and Ng, Andrew and Lee, Honglak},
  booktitle = {International Conference on Artificial Intelligence and Statistics},
  year = {2011}
}""",
    "twolines": """@article{simonsohn2018two,
  title = {Two Lines: A Valid Alternative to the Invalid Testing of {U}-Shaped Relationships With Quadratic Regressions},
  author = {Simonsohn, Uri},
  journal = {Advances in Methods and Practices in Psychological Science},
  volume = {1},
  number = {4},
  pages = {538--555},
  doi = {10.1177/2515245918805755},
  year = {2018}
}""",
}
