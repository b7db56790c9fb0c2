//! What is known of an archive as long as its size and time stay the same: enough to list it without opening it.

use serde::{Deserialize, Serialize};

use super::contents::Image;
use super::file::Stamp;

/// Facts of another version are not trusted: it may have read the archive in another way.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) stamp: Stamp,
    pub(super) images: Vec<Image>,
    pub(super) left_out: Vec<String>,
    /// Whether there were images once which the archive does not show any more, since it cannot be read.
    pub(super) hides_images: bool,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: String,
    size: u64,
    modified: (i64, u32),
    /// Repository, tag, digest.
    images: Vec<(String, String, String)>,
    left_out: Vec<String>,
    hides_images: bool,
}

impl Known {
    pub(super) fn to_json(&self) -> String {
        let image = |image: &Image| {
            (
                image.repository.to_string(),
                image.tag.to_string(),
                image.digest.to_string(),
            )
        };
        let wire = Wire {
            version: VERSION.to_owned(),
            size: self.stamp.size,
            modified: self.stamp.modified,
            images: self.images.iter().map(image).collect(),
            left_out: self.left_out.clone(),
            hides_images: self.hides_images,
        };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// `None` for anything that this version did not write.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        let wire: Wire = serde_json::from_str(text).ok()?;
        if wire.version != VERSION {
            return None;
        }
        let image = |(repository, tag, digest): (String, String, String)| {
            Some(Image {
                repository: repository.parse().ok()?,
                tag: tag.parse().ok()?,
                digest: digest.parse().ok()?,
            })
        };
        Some(Known {
            stamp: Stamp {
                size: wire.size,
                modified: wire.modified,
            },
            images: wire.images.into_iter().map(image).collect::<Option<_>>()?,
            left_out: wire.left_out,
            hides_images: wire.hides_images,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn facts_survive_a_trip_and_foreign_ones_are_dropped() {
        let known = Known {
            stamp: Stamp {
                size: 7,
                modified: (-3, 5),
            },
            images: vec![Image {
                repository: "team/app".parse().unwrap(),
                tag: "1.0".parse().unwrap(),
                digest: Digest::of(b""),
            }],
            left_out: vec!["`x`".to_owned()],
            hides_images: true,
        };
        let text = known.to_json();
        assert_eq!(Known::from_json(&text), Some(known));
        for foreign in [
            "",
            "{}",
            &text.replace(VERSION, "0.0.0"),
            &text.replace("team/app", "../x"),
        ] {
            assert_eq!(Known::from_json(foreign), None, "{foreign}");
        }
    }
}
