//! How images of a key are addressed when they are pulled. It decides how they are shown, not how they are read.

use super::Artifactory;
use crate::http::Request;

/// How images are addressed when they are pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressing {
    Path,
    Subdomain,
}

impl Artifactory {
    pub(super) fn addressing(&self) -> Addressing {
        let learnt = || {
            (self.fact("addressing").as_deref() == Some("subdomain"))
                .then_some(Addressing::Subdomain)
        };
        self.addressing.or_else(learnt).unwrap_or(Addressing::Path)
    }

    /// Finds out the addressing method once: which host answers as a registry.
    pub(super) fn probe_addressing(&self, key: &str) {
        if self.addressing.is_some() || self.fact("addressing").is_some() {
            return;
        }
        let answers = |host: &str| {
            let url = self
                .http
                .base_url(host)
                .and_then(|url| url.join("/v2/"))
                .ok()?;
            let response = self.http.send(&Request::get(&url)).ok()?;
            let is_registry = response.header("docker-distribution-api-version").is_some()
                || response.header("x-jfrog-version").is_some();
            (is_registry && matches!(response.status, 200 | 401)).then_some(())
        };
        let found = if answers(&self.registry).is_some() {
            "path"
        } else if answers(&subdomain_host(key, &self.registry)).is_some() {
            "subdomain"
        } else {
            return;
        };
        self.learn("addressing", found);
    }
}

/// The host of a key in subdomain addressing. JFrog's own cloud joins instance and key by a hyphen.
pub(super) fn subdomain_host(key: &str, registry: &str) -> String {
    match registry.strip_suffix(".jfrog.io") {
        Some(instance) if !instance.contains('.') => format!("{instance}-{key}.jfrog.io"),
        _ => format!("{key}.{registry}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains_of_the_cloud_have_a_hyphen() {
        for (registry, want) in [
            ("acme.jfrog.io", "acme-docker-local.jfrog.io"),
            ("repo.acme.example", "docker-local.repo.acme.example"),
            ("localhost:8081", "docker-local.localhost:8081"),
        ] {
            assert_eq!(subdomain_host("docker-local", registry), want);
        }
    }
}
