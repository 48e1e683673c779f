//! How an agent proves itself before it has a certificate.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use cocktail_core::id::ServerId;

use super::pin::Pin;
use super::who::is_label;

const FORM: &str = "cocktail-join-1";

/// What one server joins with, one time: derived, so that nothing that can be stolen lies in a store.
///
/// Two of them cannot be compared, because the time that it takes would tell where they differ:
/// [`Authority::check_join`](super::Authority::check_join) can.
#[derive(Clone)]
pub struct JoinSecret(String);

impl JoinSecret {
    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// What an agent needs to join: whom it may trust, who it is, and its secret.
///
/// As text it is `cocktail-join-1.<pin>.<cluster>.<server>.<number>.<secret>`. `Display` writes all of it, because somebody
/// has to put it onto the server; `Debug` leaves the secret out.
///
/// ```
/// use cocktail_agent::identity::JoinToken;
/// let pin = "5e".repeat(32);
/// let text = format!("cocktail-join-1.{pin}.blue.web-1.3.{}", "A".repeat(52));
/// let token: JoinToken = text.parse()?;
/// assert_eq!((token.cluster.as_str(), token.server.as_str(), token.number), ("blue", "web-1", 3));
/// assert_eq!(token.to_string(), text);
/// # Ok::<(), cocktail_agent::identity::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct JoinToken {
    /// The authority that the Manager's certificate must come from.
    pub pin: Pin,
    /// The cluster that the Manager must be of.
    pub cluster: String,
    /// The server that the agent is on.
    pub server: ServerId,
    /// Counts the tokens of this server. The Manager knows which one may still be used.
    pub number: u64,
    secret: JoinSecret,
}

/// The text is no [`JoinToken`]. It is not repeated here, because it may be nearly one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: one is {FORM}.<pin>.<cluster>.<server>.<number>.<secret>, in one piece")]
pub struct InvalidToken;

impl JoinToken {
    pub(super) fn new(pin: Pin, cluster: &str, server: &ServerId, number: u64, secret: JoinSecret) -> Self {
        Self { pin, cluster: cluster.to_owned(), server: server.clone(), number, secret }
    }

    /// What proves to the Manager that this server may join.
    pub fn secret(&self) -> &JoinSecret {
        &self.secret
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pin, cluster, server, number, secret } = self;
        write!(f, "{FORM}.{}.{cluster}.{server}.{number}.{}", pin.hex(), secret.0)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("pin", &self.pin)
            .field("cluster", &self.cluster)
            .field("server", &self.server)
            .field("number", &self.number)
            .field("secret", &self.secret)
            .finish()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let parts: Vec<&str> = text.split('.').collect();
        let [FORM, pin, cluster, server, number, secret] = parts[..] else { return Err(InvalidToken) };
        if !is_label(cluster) || !is_label(server) || decode(secret).is_none() {
            return Err(InvalidToken);
        }
        let pin = Pin::from_hex(pin).map_err(|_| InvalidToken)?;
        let number = number.parse().map_err(|_| InvalidToken)?;
        let token = Self::new(pin, cluster, &ServerId::new(server), number, JoinSecret(secret.to_owned()));
        // A number can be written in more than one way, and a token cannot.
        if token.to_string() == text { Ok(token) } else { Err(InvalidToken) }
    }
}

/// What join secrets are derived from. It outlives every authority, so that a rotation leaves open joins alone.
#[derive(Clone)]
pub(super) struct JoinKey(pub(super) [u8; 32]);

impl JoinKey {
    pub(super) fn secret(&self, cluster: &str, server: &ServerId, number: u64) -> JoinSecret {
        JoinSecret(BASE32_NOPAD.encode(&self.mac(cluster, server, number).finalize().into_bytes()))
    }

    /// Whether a text is the secret, in a time that does not tell where it differs.
    pub(super) fn check(&self, cluster: &str, server: &ServerId, number: u64, given: &str) -> bool {
        let Some(bytes) = decode(given) else { return false };
        self.mac(cluster, server, number).verify_slice(&bytes).is_ok()
    }

    fn mac(&self, cluster: &str, server: &ServerId, number: u64) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        // Each part has its length before it, so that no two triples are the same bytes.
        [cluster, server.as_str()]
            .iter()
            .fold(mac.chain_update(b"join\0"), |mac, part| {
                mac.chain_update((part.len() as u64).to_be_bytes()).chain_update(part)
            })
            .chain_update(number.to_be_bytes())
    }
}

fn decode(secret: &str) -> Option<[u8; 32]> {
    BASE32_NOPAD.decode(secret.as_bytes()).ok()?.try_into().ok()
}
