//! Who is who between a Manager and the agents of its servers.
//!
//! The Manager is its own certificate authority: start at [`Authority`]. An agent starts at [`AgentIdentity`], and before
//! it has one, at [`JoinToken`] and [`pinned_config`]. What a peer's certificate says is an [`Identity`].
//!
//! What always holds:
//! - A certificate is for one role in one cluster, written in its only URI. A role is never read from anywhere else, and
//!   a certificate that may call is never one that may be called.
//! - Only TLS 1.3 is spoken, and no session is resumed: every connection shows its certificate anew.
//! - A file is replaced as a whole or not at all, and what belongs together lies in one file.
//! - A folder that others may look into is refused, and a file that cannot be read is never overwritten.
//!
//! There is no socket and no task here, only values, files and configurations of TLS. Left to others: how often a token may
//! be used and until when, who is told of a rotation, and what a peer may do ([`standing`] and [`Revoked`] say what to ask
//! at each call). Revocation is a list of the Manager and a short life; there are no lists to publish and none to parse.

mod agent;
mod authority;
mod certificate;
mod folder;
mod issue;
mod join;
mod kept;
mod pin;
mod revoked;
#[cfg(test)]
mod tests;
mod tls;
mod who;

pub use agent::{AgentIdentity, Request};
pub use authority::Authority;
pub use certificate::{Standing, standing};
pub use issue::Issued;
pub use join::{InvalidToken, JoinSecret, JoinToken};
pub use pin::{InvalidPin, Pin};
pub use revoked::{Revoked, Subject};
pub use tls::{ALPN, EXPIRED_GRACE, pinned_config};
pub use who::{Identity, IdentityError, Role};
