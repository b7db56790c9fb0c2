//! `WWW-Authenticate` (RFC 9110 section 11.6.1): what a server wants before it answers.

/// One challenge of a 401 answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        /// As sent; Artifactory's may lack the repository key, older ones have none.
        scope: Option<String>,
    },
}

/// Reads all challenges of one header value; unknown schemes and damaged ones are left out.
/// Schemes are compared without case: Nexus writes `BASIC`.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let scheme = &rest[..end];
        rest = rest[end..].trim_start();
        let mut parameters = Vec::new();
        while let Some((key, value, behind)) = parameter(rest) {
            parameters.push((key, value));
            rest = behind;
        }
        rest = rest.trim_start_matches([' ', ',']);
        let value_of = |name: &str| {
            parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if let Some(realm) =
            value_of("realm").filter(|_| scheme.eq_ignore_ascii_case("bearer"))
        {
            challenges.push(Challenge::Bearer {
                realm,
                service: value_of("service"),
                scope: value_of("scope"),
            });
        }
    }
    challenges
}

/// `key=value` or `key="value"` at the start of `text`, and what is behind it and its comma.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', ',']);
    let (key, rest) = text.split_once('=')?;
    let key = key.trim_end();
    if key.is_empty() || key.contains([' ', ',', '"']) {
        return None;
    }
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        return Some((key, rest[..end].to_owned(), rest[end..].trim_start()));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((key, value, quoted[at + 1..].trim_start())),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_as_servers_send_them() {
        for (header, want) in [
            (r#"Basic realm="Artifactory Realm""#, vec![Challenge::Basic]),
            (
                r#"BASIC realm="Sonatype Nexus Repository Manager""#,
                vec![Challenge::Basic],
            ),
            (
                r#"Bearer realm="https://h/v2/token",service="h:443""#,
                vec![bearer("https://h/v2/token", Some("h:443"), None)],
            ),
            (
                r#"bearer Realm="https://h/t", scope="repository:a/b:pull,push" , service=h"#,
                vec![bearer(
                    "https://h/t",
                    Some("h"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (
                r#"Basic realm="x", Bearer realm="r""#,
                vec![Challenge::Basic, bearer("r", None, None)],
            ),
            (r#"Negotiate, Basic"#, vec![Challenge::Basic]),
            (r#"Bearer realm="a\"b""#, vec![bearer("a\"b", None, None)]),
            (r#"Bearer realm="unterminated"#, vec![]),
            ("", vec![]),
            (", , =,", vec![]),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
    }
}
