//! Answers that are none of the expected ones, as errors.

use serde::Deserialize;

use crate::error::{Error, Kind};
use crate::http::{Response, is_passing};
use crate::limit;

/// The error of an answer that is none of the expected ones, with the server's own message.
pub(crate) fn status_error(response: Response) -> Error {
    let status = response.status;
    let wait = response.retry_after;
    let host = response.url.origin().authority();
    let body =
        limit::read_all(response.body, limit::ERROR_BODY_BYTES, "error body").unwrap_or_default();
    let said = server_message(&body)
        .map(|message| format!(": {message}"))
        .unwrap_or_default();
    let text = format!("`{host}` answered {status}{said}");
    let err = match status {
        401 => {
            Error::tell(text).hint("give credentials: the registry's variables, or `docker login`")
        }
        403 => Error::tell(text)
            .hint("the account lacks permission, or the server blocks it after failed logins"),
        404 | 410 => Error::skip(text),
        status if is_passing(status) => Error::retry(text),
        _ => Error::skip(text),
    };
    let err = err.with_status(status);
    match wait {
        Some(wait) if err.kind() == Kind::Retry => err.after(wait),
        _ => err,
    }
}

/// The first message of an error body, in the forms of distribution and of Artifactory.
fn server_message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        code: Option<String>,
        message: Option<String>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let item = body.errors.into_iter().next()?;
    let message: String = item.message.or(item.code)?.chars().take(200).collect();
    (!message.is_empty()).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_error_bodies_are_read() {
        for (body, want) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not known"}]}"#,
                Some("not known"),
            ),
            (
                r#"{"errors" : [ {"status" : 401, "message" : "Bad Credentials"} ]}"#,
                Some("Bad Credentials"),
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, Some("DENIED")),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(server_message(body.as_bytes()).as_deref(), want, "{body}");
        }
    }
}
