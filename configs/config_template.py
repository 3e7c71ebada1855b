"""A config file in the form that the paper's authors use: copy it, change it, and train with it.

    cd tools && python3 train.py --cfg=configs/config_template.py
    codistill train configs/config_template.py --roots-from tools     # does the same
    codistill convert configs/config_template.py                      # prints it as codistill's own YAML

It is read, not run: only numbers, text, True, False, None, lists and dict(...) may stand here. A field that
is left out has the value that it has here, except name and root, batch_size of train_cfg, optimizer,
scheduler and epochs. docs/from-boc-kd.md says what each becomes, and what the authors' code did otherwise.
"""

model = dict(
    # The network of S1, the pseudo teacher. For small images: ResNet20, 32, 44, 56, 110 or 1202 and
    # Densenet_12_100, Densenet_24_250 or Densenet_40_190 (growth rate, depth). Of torchvision:
    # Resnet18, 34, 50, 101 or 152, Resnext50_32x4d, Resnext101_32x8d, Wide_Resnet50_2,
    # Wide_Resnet101_2, Densenet121, 169 or 201, and Efficientnet_B0 to Efficientnet_B7. Mind the
    # capitals: ResNet20, but Resnet18.
    name="ResNet20",
    # Whether all begin with torchvision's ImageNet weights: S1 whole, the others with slices of
    # them.
    pretrained=False,
    # How many students there are, S1 among them. Student j of N has (N - j + 1) / N of the
    # channels.
    No_students=5,
    # How many of the three blocks are narrowed, from the last; as many feature maps are compared.
    No_blocks=3,
    # Whether the GPUs named below share each batch, one process a GPU.
    DataParallel=False,
    # Has no effect, neither here nor in the authors' code.
    Multi_GPU_replica=False,
    # Whether the stem keeps still while the students train together.
    Common_base_freeze=False,
    # Whether the stem learns from all students (True) or from S1 alone (False).
    Collective_Base_gradient=False,
    # The GPUs of DataParallel.
    gpu=[],
)

dataset_cfg = dict(
    id_cfg=dict(
        # The folder of the data, in the layout that the authors or torchvision use (docs/data.md).
        # Relative paths start from tools/ with tools/train.py, and from where you are with
        # codistill train.
        root="../data",
        # MNIST, Fashion-MNIST, CIFAR10, CIFAR100, SVHN, STL10, Caltech (256), CUB2011
        # (CUB-200-2011) or Imagenet.
        name="CIFAR10",
        # How many classes there must be; None: as many as there are.
        num_classes=None,
        # Whether torchvision may download the files, for sets where it can.
        download=False,
    ),
    train_cfg=dict(
        batch_size=128,
        # Whether each epoch has an order of its own.
        shuffle=True,
        # Processes that read images; those that fit in memory need none.
        num_workers=2,
    ),
    # The test images: their batches change no result, and their order is always that of the files.
    val_cfg=dict(
        batch_size=250,
        shuffle=False,
        num_workers=2,
    ),
)

train_cfg = dict(
    # A class of torch.optim by its name, with lr and whatever else it is called with. Adapters
    # learn at half the rate.
    optimizer=dict(
        name="SGD",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
    ),
    criterion=dict(
        # The loss with the labels: a class of torch.nn, or dict(name=..., label_smoothing=0.1).
        L1="CrossEntropyLoss",
        # The loss with the mean of all students' logits; there is this one.
        L2="KL_Loss",
        # The loss between feature maps: a class of torch.nn, such as MSELoss, L1Loss, SmoothL1Loss
        # or HuberLoss.
        L3="MSELoss",
        # Whether a learned 1x1 convolution fits a student's maps to those of S1 (True), or channel
        # means are compared.
        Adaptation_use=True,
        # The weights of the three losses: labels, feature maps, mean of the logits.
        contribution_ratios=[0.7, 0.15, 0.15],
    ),
    # A class of torch.optim.lr_scheduler by its name, with its arguments: StepLR (step_size,
    # gamma), MultiStepLR (milestones, gamma), ExponentialLR (gamma), ReduceLROnPlateau (mode="max",
    # factor, patience), CyclicLR (base_lr, max_lr, step_size_up, in steps), or any other that needs
    # no function. All of them step after each epoch, CyclicLR after each step. Left out, the rate
    # stays as it is.
    scheduler=dict(
        name="MultiStepLR",
        milestones=[150, 225],
        gamma=0.1,
    ),
    # Whether the stem and S1 train alone first, and for how many epochs.
    teacher_pretraining=False,
    pretraining_epochs=10,
    # The temperature of the third loss.
    KL_loss_temperature=3,
    # Epochs from one test to the next: after the first epoch, this many later and so on, and after
    # the last. Every tested epoch can be resumed from.
    test_interval=10,
    # Whether accuracies and losses are drawn, and written as arrays, in the run's folder.
    plot_accuracy_graphs=True,
    # Epochs in which the students train together: the total, also when a run is resumed.
    epochs=300,
    # Where run folders go, each called by the time of its start: month_day_hour_minute.
    training_store_root="../Model_storage",
)

# None trains all students together; a number trains that student alone, counted from 0: 0 is S1, 4
# is S5.
Single_model_mode = None

# Go on with a run, or only test one; at most one of them.
Train_resume = False
Validate_only = False
# The student that is tested, counted from 0; None: all of them and the mean of their outputs.
Validate_student_no = None
# The folder of that run in training_store_root, and the epoch after which it is resumed or tested,
# from 1.
Load_run_id = None
Load_Epoch = None
