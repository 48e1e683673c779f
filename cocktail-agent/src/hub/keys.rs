//! What workers prove themselves with: derived, never stored, never the same for two starts.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The secret that tokens and keys of workers are derived from. It is the same after a restart, so that workers that
/// registered before are known again.
#[derive(Clone)]
pub struct Keys(Hmac<Sha256>);

/// What a secret is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The one-time token that a worker is started with.
    Token,
    /// What a worker comes back with.
    Session,
}

impl Keys {
    /// Takes a secret of chance.
    ///
    /// # Panics
    /// Never: a secret of any length will do.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("a key of any length will do"))
    }

    pub(super) fn derive(&self, purpose: Purpose, container: &str, generation: u64) -> String {
        BASE32_NOPAD.encode(&self.mac(purpose, container, generation).finalize().into_bytes())
    }

    /// Whether a text is what was derived, in a time that does not tell where it differs.
    pub(super) fn verify(&self, purpose: Purpose, container: &str, generation: u64, text: &str) -> bool {
        let Ok(bytes) = BASE32_NOPAD.decode(text.as_bytes()) else { return false };
        self.mac(purpose, container, generation).verify_slice(&bytes).is_ok()
    }

    fn mac(&self, purpose: Purpose, container: &str, generation: u64) -> Hmac<Sha256> {
        let purpose: &[u8] = match purpose {
            Purpose::Token => b"worker token\0",
            Purpose::Session => b"worker session\0",
        };
        self.0.clone().chain_update(purpose).chain_update(generation.to_be_bytes()).chain_update(container)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_of_one_start_and_one_purpose() {
        let keys = Keys::new(&[7; 32]);
        let token = keys.derive(Purpose::Token, "web-1", 2);
        assert!(keys.verify(Purpose::Token, "web-1", 2, &token));
        let wrong = [(Purpose::Session, "web-1", 2), (Purpose::Token, "web-2", 2), (Purpose::Token, "web-1", 3)];
        for (purpose, container, generation) in wrong {
            assert!(!keys.verify(purpose, container, generation, &token), "{purpose:?} {container} {generation}");
        }
        assert!(!Keys::new(&[8; 32]).verify(Purpose::Token, "web-1", 2, &token));
        for text in ["", "no base 32", &token[..8], &format!("{token}{token}")] {
            assert!(!keys.verify(Purpose::Token, "web-1", 2, text), "{text:?}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }
}
