"""Exercises of lesson 09, DeiT. Check them by: python -m lessons check 09"""


def soft_gradient(student, teacher, temperature):
    """Return the gradient of soft distillation by the student's logits.

    The loss is the mean over the images of
    tau^2 KL(softmax(teacher / tau) || softmax(student / tau)).

    Args:
        student, teacher: logits, arrays (B, K).
        temperature: tau, above 0.

    Returns:
        array (B, K).
    """
    raise NotImplementedError


def deit_loss(class_logits, distillation_logits, labels, teacher, alpha):
    """Return DeiT's loss with hard distillation, a number: the mean over the images.

    The class head learns the labels, with weight 1 - alpha; the distillation head learns the
    teacher's decisions, with weight alpha. Both by cross-entropy.

    Args:
        class_logits, distillation_logits: of the student's two heads, arrays (B, K).
        labels: classes, array of integers (B,).
        teacher: logits of the teacher, array (B, K).
        alpha: from 0 to 1.
    """
    raise NotImplementedError


def joint_answer(class_logits, distillation_logits):
    """Return the class that a distilled network names in evaluation, by the rule of the paper.

    That rule takes the mean of the two heads' softmax outputs, not of their logits.

    Args:
        class_logits, distillation_logits: arrays (B, K).

    Returns:
        array of integers (B,).
    """
    raise NotImplementedError
