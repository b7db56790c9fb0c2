//! Webhooks of products: who may send them, and what they say.
//!
//! In: headers and body of a delivery. Out: [`Message`], which names images that may have changed. A secret is
//! compared in constant time, before the body is parsed.
//!
//! *Invariant:* nothing is asked of the registry here, and nothing a delivery says is taken for true but that it
//! is worth a look.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha1::Sha1;
use sha2::Sha256;

use crate::image::{Digest, Repository, Tag};
use crate::secret::Secret;

/// A delivery as it came in.
pub(crate) struct Delivery<'a> {
    /// The first header of that name, in any case.
    pub(crate) header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub(crate) body: &'a [u8],
}

/// An image that a delivery speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) repository: Repository,
    /// `None` stands for every known tag, of those that point to `digest` when there is one.
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Option<Digest>,
    pub(crate) is_delete: bool,
}

/// What a body says to one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// It has another form than this product's.
    Foreign,
    /// It has this product's form and cannot be read.
    Malformed(String),
    /// A test of the connection.
    Test,
    /// Images that changed; may be empty. The texts say why others are of no interest here.
    Changes(Vec<Change>, Vec<String>),
}

/// The webhook of one source.
pub(crate) trait Webhook: Send + Sync {
    /// The port that was asked for with `port=`.
    fn port(&self) -> Option<u16>;

    /// The variable whose value senders must prove to know, without its prefix.
    fn secret_variable(&self) -> &'static str;

    /// Its value; when it is not set, everybody may send.
    fn secret(&self) -> Option<&Secret>;

    /// Whether the sender of a delivery knows `secret`.
    fn proves(&self, delivery: &Delivery<'_>, secret: &Secret) -> bool;

    fn has_secret(&self) -> bool {
        self.secret().is_some()
    }

    fn is_authentic(&self, delivery: &Delivery<'_>) -> bool {
        self.secret()
            .is_none_or(|secret| self.proves(delivery, secret))
    }

    fn read(&self, body: &Value) -> Message;

    /// A delivery that proves the connection and changes nothing: its headers, signed when there is a secret, and
    /// its body.
    fn sample(&self) -> (Vec<(&'static str, String)>, String);

    /// What to enter in the product so that it sends to `url`: text for a person.
    fn setup(&self, url: &str) -> String;
}

/// Whether `given` is the secret.
pub(super) fn is_secret(secret: &Secret, given: &str) -> bool {
    // Equal texts have equal codes, and those are compared in constant time.
    let code = |text: &str| keyed::<Hmac<Sha256>>(secret, text.as_bytes());
    code(given)
        .verify(&code(secret.reveal()).finalize().into_bytes())
        .is_ok()
}

/// Whether `given` is the lower-case hexadecimal HMAC-SHA256 of `body`.
pub(super) fn is_hmac_sha256(secret: &Secret, body: &[u8], given: &str) -> bool {
    from_hex(given).is_some_and(|code| {
        keyed::<Hmac<Sha256>>(secret, body)
            .verify_slice(&code)
            .is_ok()
    })
}

/// Whether `given` is the lower-case hexadecimal HMAC-SHA1 of `body`.
pub(super) fn is_hmac_sha1(secret: &Secret, body: &[u8], given: &str) -> bool {
    from_hex(given).is_some_and(|code| {
        keyed::<Hmac<Sha1>>(secret, body)
            .verify_slice(&code)
            .is_ok()
    })
}

/// The lower-case hexadecimal HMAC-SHA256 of `body`.
pub(super) fn hmac_sha256(secret: &Secret, body: &[u8]) -> String {
    let code = keyed::<Hmac<Sha256>>(secret, body).finalize().into_bytes();
    code.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keyed<M: Mac + KeyInit>(secret: &Secret, body: &[u8]) -> M {
    let mac = <M as KeyInit>::new_from_slice(secret.reveal().as_bytes());
    let mut mac = mac.expect("HMAC takes keys of any length");
    mac.update(body);
    mac
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    // Both kinds of code are shorter.
    if !text.len().is_multiple_of(2) || text.len() > 64 {
        return None;
    }
    let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_openssl() {
        // printf '{"a":1}' | openssl dgst -sha256 -hmac s3cret; the same with -sha1.
        let (secret, body) = (Secret::new("s3cret".to_owned()), br#"{"a":1}"#);
        let sha256 = "5910e62016ef5034272c926c27071992a465c2335cecf41851bda071577f4f6d";
        let sha1 = "79999786a1bff10cd4d7dd0b0752574af76be0b5";
        assert_eq!(hmac_sha256(&secret, body), sha256);
        assert!(is_hmac_sha256(&secret, body, sha256));
        assert!(is_hmac_sha1(&secret, body, sha1));
        for wrong in [
            "",
            "s3cret",
            &sha256.to_uppercase(),
            &sha256[..62],
            &format!("{sha256}00"),
            &format!(" {sha256}"),
            sha1,
        ] {
            assert!(!is_hmac_sha256(&secret, body, wrong), "{wrong}");
        }
        assert!(!is_hmac_sha256(&secret, b"{}", sha256));
    }

    #[test]
    fn the_secret_itself_must_be_whole() {
        let secret = Secret::new("s3cret".to_owned());
        assert!(is_secret(&secret, "s3cret"));
        for wrong in ["", "s3cre", "s3crets", "S3CRET", "s3cret "] {
            assert!(!is_secret(&secret, wrong), "{wrong}");
        }
    }
}
