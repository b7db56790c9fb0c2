//! placeholder
use crate::secret::Secret;
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    Anonymous,
    Basic { user: String, password: Secret },
    Identity { token: Secret },
    Bearer { token: Secret },
}
