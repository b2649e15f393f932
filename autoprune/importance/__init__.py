"""Criteria rank the channels inside a group; one file per criterion, one card per criterion in the table below.

A criterion is called as `criterion(evidence, rng, **settings) -> importances`; `evidence.criterion` marks what it needs
besides weights. One that needs `outputs` or `losses` is called once, with all groups (`network.NetworkEvidence`).
"""

from autoprune.registry import Part, Registry

CRITERIA = Registry(
    "criterion",
    {
        "l1": Part(
            "autoprune.importance.l1:l1",
            "Li et al. 2017, Pruning Filters for Efficient ConvNets, arXiv 1608.08710, section 3.1",
            "To compare with the many papers that use it; it differs little from l2.",
        ),
        "l2": Part(
            "autoprune.importance.l2:l2",
            "The group norm of DepGraph: Fang et al. 2023, arXiv 2301.12900, section 3.3",
            "The default: needs no data and works for every network.",
        ),
        "magnitude": Part(
            "autoprune.importance.l1:l1",
            "Han et al. 2015, Learning both Weights and Connections, arXiv 1506.02626, section 3.1",
            "The name of l1 where single weights go (a space of densities); the two are one criterion.",
        ),
        "group_norm": Part(
            "autoprune.importance.group_norm:group_norm",
            "Li et al. 2019, OICSR, arXiv 1905.11664; DepGraph: Fang et al. 2023, arXiv 2301.12900, section 3.3",
            "Weights alone, where a channel that is hardly read shall go, however strongly it is written.",
        ),
        "lamp": Part(
            "autoprune.importance.lamp:lamp",
            "Lee et al. 2021, Layer-adaptive Sparsity, arXiv 2010.07611, equation 4, for channels",
            "Weights alone and one threshold over all layers: the order of l2, on a scale that layers share.",
        ),
        "fpgm": Part(
            "autoprune.importance.fpgm:fpgm",
            "He et al. 2019, Filter Pruning via Geometric Median, arXiv 1811.00250, equation 9",
            "Weights alone, where norms differ little: drops the filters that the others can stand for.",
        ),
        "coreset": Part(
            "autoprune.importance.coreset:coreset",
            "Mussay et al. 2020, Data-Independent Neural Pruning via Coresets, arXiv 1907.04018, algorithm 2",
            "Weights alone: what a channel can add to any output at most, for whatever inputs.",
        ),
        "frequency": Part(
            "autoprune.importance.frequency:frequency",
            "Liu et al. 2018, Frequency-Domain Dynamic Pruning for CNNs, NeurIPS, section 3, for channels",
            "Weights alone and kernels of 3 x 3 or more: the order of l1, where smooth kernels count more.",
        ),
        "redundant": Part(
            "autoprune.importance.redundant:redundant",
            "Ayinde & Zurada 2018, Building Efficient ConvNets, arXiv 1802.07653, section 3",
            "Weights alone and wide layers with filters that point the same way: keeps one of each cluster.",
        ),
        "nisp": Part(
            "autoprune.importance.nisp:nisp",
            "Yu et al. 2018, NISP, arXiv 1711.05908, equation 12; Inf-FS: Roffo et al. 2015, ICCV",
            "What the last layer needs, traced back through all layers; unlabelled data, for its last features only.",
        ),
        "bn_scale": Part(
            "autoprune.importance.bn_scale:bn_scale",
            "Network Slimming: Liu et al. 2017, arXiv 1708.06519, section 3.2",
            "Networks that were trained with a penalty on the scales of their batch norms.",
        ),
        "apoz": Part(
            "autoprune.importance.apoz:apoz",
            "Hu et al. 2016, Network Trimming, arXiv 1607.03250, section 3.1",
            "Networks with ReLU and unlabelled data; batch norms make it weak, as they leave half of the values zero.",
        ),
        "activation_variance": Part(
            "autoprune.importance.activation_variance:activation_variance",
            "Polyak & Wolf 2015, Channel-Level Acceleration of Deep Face Representations, IEEE Access 3",
            "Unlabelled data, and constants that are made up for: drops the channels that say least.",
        ),
        "inbound_variance": Part(
            "autoprune.importance.inbound_variance:inbound_variance",
            "Polyak & Wolf 2015, Channel-Level Acceleration of Deep Face Representations, IEEE Access 3",
            "Unlabelled data: as activation_variance, weighed by the weights that read the channel.",
        ),
        "entropy": Part(
            "autoprune.importance.entropy:entropy",
            "Luo & Wu 2017, An Entropy-based Pruning Method, arXiv 1706.05791, section 3.2",
            "Unlabelled data, some hundred examples or more: spread counts, scale does not.",
        ),
        "wanda": Part(
            "autoprune.importance.wanda:wanda",
            "Sun et al. 2024, A Simple and Effective Pruning Approach, arXiv 2306.11695, equation 1, for channels",
            "Unlabelled data and networks without batch norms, transformers above all: cheap and hard to beat there.",
        ),
        "obs": Part(
            "autoprune.importance.obs:obs",
            "Optimal Brain Surgeon: Hassibi & Stork 1992; layer-wise: Dong et al. 2017, arXiv 1705.07565",
            "Unlabelled data and inheritance by least squares: the error that the refit leaves.",
        ),
        "net_trim": Part(
            "autoprune.importance.net_trim:net_trim",
            "Aghasi et al. 2017, Net-Trim, arXiv 1611.05162, section 2, on pre-activations",
            "Unlabelled data, single weights above all: the sparsest layer that gives the same outputs.",
        ),
        "thinet": Part(
            "autoprune.importance.thinet:thinet",
            "Luo et al. 2017, ThiNet, arXiv 1707.06342, equation 6",
            "Unlabelled data: keeps the next layer's outputs, without refitting; counts channels together.",
        ),
        "lasso": Part(
            "autoprune.importance.lasso:lasso",
            "He et al. 2017, Channel Pruning for Accelerating Very Deep Networks, arXiv 1707.06168, equation 3",
            "Unlabelled data and inheritance by least squares, as in the paper: channels that stand for one another.",
        ),
        "hrank": Part(
            "autoprune.importance.hrank:hrank",
            "Lin et al. 2020, HRank, arXiv 2002.10179, equation 7",
            "Unlabelled data and convolutions with large maps, to compare with papers that use it.",
        ),
        "chip": Part(
            "autoprune.importance.chip:chip",
            "Sui et al. 2021, CHIP, arXiv 2110.13981, equation 4",
            "Unlabelled data: drops channels that the others span; minutes for wide layers.",
        ),
        "scop": Part(
            "autoprune.importance.scop:scop",
            "SCOP-like: Tang et al. 2020, SCOP, arXiv 2010.10732, section 3; knockoffs are the batch in another order",
            "Labelled data: channels against a control; the paper's control is made by a generative network.",
        ),
        "taylor_weight": Part(
            "autoprune.importance.taylor_weight:taylor_weight",
            "Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, arXiv 1906.10771, equation 8",
            "Labelled data: scores mean the same in all layers, so it suits global thresholds.",
        ),
        "taylor_activation": Part(
            "autoprune.importance.taylor_activation:taylor_activation",
            "Molchanov et al. 2017, Pruning CNNs for Resource Efficient Inference, arXiv 1611.06440, equation 8",
            "Labelled data and comparisons with papers that use it; taylor_gate is its successor.",
        ),
        "taylor_gate": Part(
            "autoprune.importance.taylor_gate:taylor_gate",
            "Molchanov et al. 2019, arXiv 1906.10771, equation 8 on gates (section 3.2)",
            "Labelled data: the cheapest good estimate of the loss without a channel, comparable between layers.",
        ),
        "fisher": Part(
            "autoprune.importance.fisher:fisher",
            "Theis et al. 2018, Faster gaze prediction with dense networks and Fisher pruning, arXiv 1801.05787",
            "Labelled data and a network near a minimum of its loss, for which its second-order argument holds.",
        ),
        "obd": Part(
            "autoprune.importance.obd:obd",
            "Optimal Brain Damage: LeCun, Denker & Solla 1990, NIPS 2, equation 5",
            "Labelled data and a trained network whose loss has no slope left; a minute rather than a second.",
        ),
        "hap": Part(
            "autoprune.importance.hap:hap",
            "Yu et al. 2022, Hessian-Aware Pruning and Optimal Neural Implant, arXiv 2101.08940, equation 9",
            "Labelled data and one threshold over all layers; minutes for large networks.",
        ),
        "snip": Part(
            "autoprune.importance.snip:snip",
            "Lee et al. 2019, SNIP, arXiv 1810.02340, equation 5, for channels",
            "Labelled data and a network before its training.",
        ),
        "grasp": Part(
            "autoprune.importance.grasp:grasp",
            "Wang et al. 2020, GraSP, arXiv 2002.07376, equation 8, for channels",
            "Labelled data and a network before its training that is to keep its gradient flow.",
        ),
        "movement": Part(
            "autoprune.importance.movement:movement",
            "Sanh et al. 2020, arXiv 2005.07683, equation 3; for channels Lagunas et al. 2021, arXiv 2109.04838",
            "Labelled data of a new task for a pretrained network: it follows where fine-tuning moves the weights.",
        ),
        "dcp": Part(
            "autoprune.importance.dcp:dcp",
            "Zhuang et al. 2018, Discrimination-aware Channel Pruning, arXiv 1810.11809, equation 6 and algorithm 2",
            "Labelled data, where channels are to keep both a layer's outputs and what the loss needs of them.",
        ),
        "collaborative": Part(
            "autoprune.importance.collaborative:collaborative",
            "Peng et al. 2019, Collaborative Channel Pruning, ICML, PMLR 97, sections 3.2 and 3.3",
            "Labelled data, a trained network, and channels that do the same: it counts their removal together.",
        ),
        "ablation": Part(
            "autoprune.importance.ablation:ablation",
            "the oracle of Molchanov et al. 2017, arXiv 1611.06440, equation 3",
            "Small networks, and to judge the other criteria: a forward pass for each channel.",
        ),
        "greedy_forward": Part(
            "autoprune.importance.greedy_forward:greedy_forward",
            "Ye et al. 2020, Good Subnetworks Provably Exist, arXiv 2003.01794, algorithm 1",
            "Labelled data, small widths and a large cut: what is kept is chosen together; the slowest of all.",
        ),
        "sensitivity": Part(
            "autoprune.importance.sensitivity:sensitivity",
            "Engelbrecht 2001, IEEE TNN 12(6); flips as in Stevenson, Winter & Widrow 1990, IEEE TNN 1(1)",
            "Data without labels: how far the outputs move without the channel; a forward pass for each channel.",
        ),
        "first_k": Part(
            "autoprune.importance.first_k:first_k",
            "Rethinking the Value of Network Pruning: Liu et al. 2019, arXiv 1810.05270",
            "The control without chance: widths alone, as in networks whose architecture is given.",
        ),
        "random": Part(
            "autoprune.importance.random_order:random_order",
            "a random order; as a control in Li et al. 2017, arXiv 1608.08710, section 4.4",
            "The control: a criterion that does not beat it has no information about the channels.",
        ),
    },
    group="autoprune.importance",
    called_with=2,
    shared={
        "reduction": "sum, mean, max, l2 or first: scores each layer of a group by itself and joins them so",
        "normalise": "mean, max, sum or l2: divides the scores of a group by that of them, so that groups compare",
    },
)
