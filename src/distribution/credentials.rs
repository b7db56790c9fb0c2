//! placeholder
use crate::error::Result;
use crate::secret::Secret;
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    Anonymous,
    Basic { user: String, password: Secret },
    Identity { token: Secret },
    Bearer { token: Secret },
}
pub(crate) struct Keychain;
impl Keychain {
    pub(crate) fn credential(&self, _host: &str, _repository: Option<&str>) -> Result<Credential> {
        Ok(Credential::Anonymous)
    }
}
