//! What proves to a registry who asks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// What proves to a registry of images who asks. It is read anew for each use, and is never written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The table of the settings that it comes from.
    pub table: Name,
    /// What is shown; nothing for a registry that is open.
    pub proof: Option<LoginProof>,
}

/// What is shown to a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginProof {
    /// A user's password.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// An identity token.
    Token(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("table", &self.table).finish_non_exhaustive()
    }
}

impl fmt::Debug for LoginProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_says_where_it_comes_from_and_nothing_else() {
        let table = Name::new("hub").unwrap();
        let password = LoginProof::Password { username: "robot".into(), password: "canary".into() };
        for proof in [password, LoginProof::Token("canary".into())] {
            let login = Login { table: table.clone(), proof: Some(proof.clone()) };
            let shown = format!("{login:?} {proof:?}");
            assert!(shown.contains("hub") && !shown.contains("canary"), "{shown}");
        }
    }
}
