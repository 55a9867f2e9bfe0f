"""Decoding image files with Pillow, the optional extra ``images``."""

import io
import warnings

import numpy as np

from minivit.errors import MinivitError


def require_pillow():
    """Raise MinivitError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MinivitError('reading image files needs Pillow: pip install "minivit[images]"') from error


def decode(content, img_size, where):
    """Decode one image file to uint8 ``(3, height, width)``.

    The image is turned as its EXIF orientation says, made RGB (grey is repeated, transparency dropped, 16
    bits cut to 8), resized (bicubic) so that it just covers the result, and cut to its middle.

    Args:
        content: the bytes of the file, in any format that Pillow reads.
        img_size: pixels of the result: one number for both sides, or (height, width).
        where: the name to give in errors.

    Raises:
        MinivitError: Pillow is not installed, or the image is damaged or of an unknown format.
    """
    require_pillow()
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width = img_size if isinstance(img_size, tuple) else (img_size, img_size)
    try:
        with warnings.catch_warnings(), io.BytesIO(content) as file:
            # Pillow warns of large photographs; those that are twice as large it refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16-bit grey, which conversion would clip rather than scale
                image = Image.fromarray(np.clip(np.asarray(image) // 257, 0, 255).astype(np.uint8))
            if "transparency" in image.info:
                image = image.convert("RGBA")
            image = image.convert("RGB")
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
            return np.asarray(image).transpose(2, 0, 1)
    except UnidentifiedImageError as error:
        raise MinivitError(f"{where} is not an image: replace or remove it") from error
    except Exception as error:  # every format's parser fails in its own way
        reason = str(error).partition("\n")[0]
        raise MinivitError(f"{where} is a damaged image ({reason}): replace or remove it") from error
