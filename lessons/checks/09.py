"""How the exercises of lesson 09 are checked."""

import numpy as np

from lessons.checking import Exercise


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(z, labels):
    return -np.log(softmax(z)[np.arange(len(z)), labels]).mean()


def gradient_cases(rng):
    sizes = [(4, 6, 1.0), (5, 3, 2.0), (2, 10, 0.5)]
    return [(*(3 * rng.standard_normal((2, b, k))), tau) for b, k, tau in sizes]


def loss_cases(rng):
    sizes = [(5, 4, 0.5), (3, 6, 0.1), (5, 4, 0.0)]
    return [(*(2 * rng.standard_normal((2, b, k))), rng.integers(0, k, b),
             rng.standard_normal((b, k)), alpha) for b, k, alpha in sizes]


def answer_cases(rng):
    sure_and_unsure = (np.array([[4.0, 3.0, 3.0], [0.0, 20.0, 0.0]]),
                       np.array([[0.0, 2.0, 2.5], [6.0, 0.0, 5.0]]))
    return [*(tuple(5 * rng.standard_normal((2, 20, 5))) for _ in range(2)), sure_and_unsure]


def difference(student, teacher, temperature):
    return softmax(student / temperature) - softmax(teacher / temperature)


def without_temperature_squared(student, teacher, temperature):
    return difference(student, teacher, temperature) / (temperature * len(student))


def difference_alone(student, teacher, temperature):
    return difference(student, teacher, temperature) / len(student)


def temperature_squared(student, teacher, temperature):
    return temperature**2 * difference(student, teacher, temperature) / len(student)


def summed(student, teacher, temperature):
    return temperature * difference(student, teacher, temperature)


def by_logits(student, teacher, temperature):
    return temperature * difference(student, teacher, temperature) / student.size


def wrong_way(student, teacher, temperature):
    return temperature * difference(teacher, student, temperature) / len(student)


def heads_swapped(class_logits, distillation_logits, labels, teacher, alpha):
    taught = cross_entropy(class_logits, teacher.argmax(axis=1))
    return (1 - alpha) * cross_entropy(distillation_logits, labels) + alpha * taught


def alpha_swapped(class_logits, distillation_logits, labels, teacher, alpha):
    taught = cross_entropy(distillation_logits, teacher.argmax(axis=1))
    return alpha * cross_entropy(class_logits, labels) + (1 - alpha) * taught


def soft_lesson(class_logits, distillation_logits, labels, teacher, alpha):
    taught = -(softmax(teacher) * np.log(softmax(distillation_logits))).sum(axis=1).mean()
    return (1 - alpha) * cross_entropy(class_logits, labels) + alpha * taught


def labels_for_both(class_logits, distillation_logits, labels, teacher, alpha):
    taught = cross_entropy(distillation_logits, labels)
    return (1 - alpha) * cross_entropy(class_logits, labels) + alpha * taught


def summed_loss(class_logits, distillation_logits, labels, teacher, alpha):
    taught = cross_entropy(distillation_logits, teacher.argmax(axis=1))
    mean = (1 - alpha) * cross_entropy(class_logits, labels) + alpha * taught
    return len(labels) * mean


def mean_of_logits(class_logits, distillation_logits):
    return (class_logits + distillation_logits).argmax(axis=1)


def class_head_alone(class_logits, distillation_logits):
    return class_logits.argmax(axis=1)


def distillation_head_alone(class_logits, distillation_logits):
    return distillation_logits.argmax(axis=1)


EXERCISES = {
    "soft_gradient": Exercise(
        gradient_cases,
        "write the loss with softmax probabilities, and take the derivative by student / tau first",
        {
            "right but for the factor tau^2 of the loss": without_temperature_squared,
            "tau^2 of the loss times the derivative of student / tau is not 1": difference_alone,
            "the derivative of student / tau by student is not 1": temperature_squared,
            "the loss is the mean over the images, not their sum": summed,
            "the mean is over the images, not over all logits": by_logits,
            "the sign: a step against the gradient should bring the student to the teacher":
                wrong_way,
        },
    ),
    "deit_loss": Exercise(
        loss_cases,
        "two cross-entropies: which head, and which target?",
        {
            "which head learns from whom? Here they have changed places": heads_swapped,
            "alpha is the teacher's share": alpha_swapped,
            "the distillation head learns what the teacher decides, not the labels":
                labels_for_both,
            "the loss is the mean over the images, not their sum": summed_loss,
            "hard distillation: of the teacher's logits only the largest counts": soft_lesson,
        },
    ),
    "joint_answer": Exercise(
        answer_cases,
        "first each head's softmax, then their mean, and then a class",
        {
            "that is the rule of the published code; the paper's takes the softmax of each head "
            "first": mean_of_logits,
            "the distillation head has a say too": class_head_alone,
            "the class head has a say too": distillation_head_alone,
        },
    ),
}
