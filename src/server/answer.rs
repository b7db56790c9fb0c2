//! Answers, and their headers.

use tiny_http::{Header, Request, Response, StatusCode};

/// What is answered: status and a line of text; empty for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Answer {
            status,
            text: text.into(),
        }
    }

    /// Sends it. A client that has gone is nobody's error.
    pub(super) fn send(self, request: Request) {
        let text = match self.text.as_str() {
            "" => String::new(),
            text => format!("{text}\n"),
        };
        let mut response = Response::from_string(text)
            .with_status_code(StatusCode(self.status))
            .with_chunked_threshold(usize::MAX);
        let headers = [
            ("Server", "crowsnest"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ];
        let more = match self.status {
            405 => Some(("Allow", "GET, HEAD, POST")),
            503 => Some(("Retry-After", "10")),
            _ => None,
        };
        for (name, value) in headers.into_iter().chain(more) {
            if let Ok(header) = Header::from_bytes(name, value) {
                response.add_header(header);
            }
        }
        let _ = request.respond(response);
    }
}
