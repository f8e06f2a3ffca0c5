"""Two or three questions per lesson, with a reply to each answer; `frozenkit.course.quiz` shows them."""

from frozenkit.widgets import Option, Question

QUIZZES: dict[str, tuple[Question, ...]] = {
    "00": (
        Question(
            "A probe on frozen features gets 67 of 100 emoji right. Which number tells you whether that is good?",
            (
                Option(
                    "The accuracy on the very images that the head was fitted on",
                    "A wide head can know its training images by heart.",
                ),
                Option(
                    "What raw pixels, random weights and shuffled labels get",
                    "They show how much of the score needs no learned features at all.",
                    right=True,
                ),
                Option("The number of features", "Width alone says nothing: random weights give just as many."),
            ),
        ),
        Question(
            "Two probes score 65.4 % [59.4, 70.9] and 63.0 % [57.0, 68.7] on the same 257 images. What may you say?",
            (
                Option(
                    "The first probe is the better one, by 2.4 points",
                    "The difference is six images. A coin would often do that.",
                ),
                Option(
                    "Nothing yet: compare them image by image",
                    "A paired test counts the images on which just one of them is right.",
                    right=True,
                ),
                Option(
                    "They are equally good, because their intervals overlap",
                    "Overlapping intervals do not show that two probes are equal, and a paired test sees finer.",
                ),
            ),
        ),
    ),
    "01": (
        Question(
            "The sum of the domain bound is 1.6. What does it promise?",
            (
                Option("An error of at most 1.6", "True, and empty: no error is above 1."),
                Option(
                    "Nothing, but its terms can be read",
                    "A vacuous bound is read for its terms: source error, divergence, λ.",
                    right=True,
                ),
                Option(
                    "That the transfer will fail on the target", "It bounds from above. Below it, anything may happen."
                ),
            ),
        ),
        Question(
            "Which of these is a certificate: true with the stated probability, for images drawn like those at hand?",
            (
                Option(
                    "A hold-out bound on images used for nothing else",
                    "The binomial tail is all it needs. Under a shift it is void, as every certificate is.",
                    right=True,
                ),
                Option(
                    "The domain bound, measured",
                    "An estimate: a linear classifier finds less than the supremum of the theorem.",
                ),
                Option("The accuracy on val, after choosing on val", "What has chosen can no longer be believed."),
            ),
        ),
    ),
    "02": (
        Question(
            "Which layer should you take for a new task?",
            (
                Option(
                    "The last one: it is the deepest, and has learned the most",
                    "On the digits it was four points behind a middle layer, elsewhere level as far as we could tell.",
                ),
                Option(
                    "The best by leave-one-out on train",
                    "One pass gives them all, and the test images stay untouched.",
                    right=True,
                ),
                Option(
                    "The one whose score on the test images is best",
                    "Then the test score is flattered: it has chosen.",
                ),
            ),
        ),
        Question(
            "Early layers have many channels' worth of activations. Why are they still weak after average pooling?",
            (
                Option(
                    "Edges and colours, averaged over the image, say little about what is shown",
                    "What is left is how much of each there is. On the digits and the clothes, several cells instead "
                    "of one average bring most of it back; on the emoji early layers stay weak even so.",
                    right=True,
                ),
                Option("They were trained less", "All layers were trained together, by the same loss."),
                Option(
                    "They are too wide for the head, which then learns everything by heart",
                    "After pooling they are the narrowest of all.",
                ),
            ),
        ),
    ),
    "03": (
        Question(
            "You have five labelled images of each class. Which head do you try first?",
            (
                Option(
                    "Class means",
                    "There is nothing to tune, and with five labels per class no head was clearly better here.",
                    right=True,
                ),
                Option(
                    "An MLP with 512 hidden units",
                    "It learns 104,970 numbers from fifty images. Here it did about as well, for more work.",
                ),
                Option(
                    "Attention over tokens",
                    "Even with 400 images of five classes it had no lead here over a linear head trained alike.",
                ),
            ),
        ),
        Question(
            "A probe says 0.9 for each of a hundred images and is right on 70. What does temperature scaling change?",
            (
                Option("The accuracy", "All logits are divided by the same number: the largest stays the largest."),
                Option(
                    "The confidence only",
                    "It comes down towards 0.7, and no prediction changes.",
                    right=True,
                ),
                Option(
                    "The features, which it pulls towards the class means",
                    "They are frozen, and it comes after the head.",
                ),
            ),
        ),
    ),
    "04": (
        Question(
            "When is it wrong to read features from a cache?",
            (
                Option("When the head changes", "The head comes after the features: that is what a cache is for."),
                Option(
                    "When each pass augments anew",
                    "Then each pass has other features. A fixed number of views can be cached, all of them cannot.",
                    right=True,
                ),
                Option("When the head is trained for many more epochs", "The more epochs, the more a cache saves."),
            ),
        ),
        Question(
            "You train a head on a frozen backbone. From which epoch on does a cache of the features pay?",
            (
                Option(
                    "After about ten epochs",
                    "The cache costs one pass through the backbone, which every epoch without it costs as well.",
                ),
                Option("Only for fine-tuning", "Fine-tuning changes the features at every step: nothing can be kept."),
                Option(
                    "From about the second",
                    "Extraction costs one frozen epoch; every epoch after it costs next to nothing.",
                    right=True,
                ),
            ),
        ),
    ),
    "05": (
        Question(
            "`requires_grad` is False everywhere, and yet the features of an image depend on its neighbours. Why?",
            (
                Option(
                    "The backbone is in train mode",
                    "Batch norm then normalises with the batch, and writes what it saw into its buffers.",
                    right=True,
                ),
                Option(
                    "The optimiser still moves the weights of the backbone", "Without gradients it has nothing to move."
                ),
                Option("The head was fitted twice", "The head comes after the features and cannot change them."),
            ),
        ),
        Question(
            "Raw pixels beat the features of the last layer. What does that tell you?",
            (
                Option("The labels are wrong", "Pixels found something in them: they are hardly random."),
                Option(
                    "Fine-tuning the whole network is the only way out",
                    "Look first: an earlier layer or another pooling may have what the task needs.",
                ),
                Option(
                    "Little yet: find out why before you change anything",
                    "Wrong preprocessing, train mode, a stale cache, the average over positions, too few labels for so "
                    "many features, the scaling of rare ones, or training that taught the network to ignore it: "
                    "controls tell some of them apart.",
                    right=True,
                ),
            ),
        ),
    ),
    "06": (
        Question(
            "What does a frozen baseline tell you about fine-tuning?",
            (
                Option("How much it will gain", "Not without trying: the gap can be nothing, or twenty points."),
                Option(
                    "What it must beat to be worth its cost",
                    "The baseline costs seconds, and everything later is compared with it.",
                    right=True,
                ),
                Option(
                    "Which of several backbones will be best once tuned",
                    "Not for sure. Among networks pretrained with ImageNet's labels the two orders mostly agree "
                    "(Kornblith et al. 2019). Across ways of pretraining they need not: masked autoencoders are the "
                    "known exception (He et al. 2022).",
                ),
            ),
        ),
        Question(
            "The criteria contradict each other. What now?",
            (
                Option("Take the majority", "They are rules of thumb, and not equally important to you."),
                Option(
                    "Fine-tune the whole network, to be on the safe side",
                    "That is the most expensive answer, and with few labels not the safest.",
                ),
                Option(
                    "Measure the gap on a part of the data",
                    "A gap measured on your data, with its interval, answers what the rules only guess at.",
                    right=True,
                ),
            ),
        ),
        Question(
            "One fine-tuning run ends two points below the frozen probe, on 400 test images. What follows?",
            (
                Option(
                    "Not much yet: look at the interval of the difference, and at how rate and layer were chosen",
                    "Two points on 400 images are often within the interval, and a rate that was not chosen "
                    "understates the gap.",
                    right=True,
                ),
                Option(
                    "There must be a mistake in the code, because the frozen baseline is a lower bound",
                    "A run can end below it. The better of the two cannot be below the probe, since you may keep the "
                    "probe.",
                ),
                Option(
                    "Fine-tuning is harmful on this task",
                    "One run at one setting cannot say that. Is the interval below zero, and was the run a fair one?",
                ),
            ),
        ),
    ),
}
