//! Users of this machine by name.

use std::fs;
use std::process::{Command, Stdio};

/// A user's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user with that name or number; `None` where there is none. Users that come from a directory service are asked
/// for through `getent`, where it exists.
pub(crate) fn find(name: &str) -> Option<User> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    in_passwd(&passwd, name).or_else(|| in_passwd(&getent(name)?, name)).or_else(|| {
        let uid = name.parse().ok()?;
        Some(User { uid, gid: uid })
    })
}

fn getent(name: &str) -> Option<String> {
    let mut command = Command::new("getent");
    command.args(["passwd", "--", name]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    String::from_utf8(output.stdout).ok()
}

fn in_passwd(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (login, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        (login == name || uid == name).then_some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nweb:x:1001:1002:,,,:/srv/web:/bin/sh\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let web = Some(User { uid: 1001, gid: 1002 });
        assert_eq!(in_passwd(PASSWD, "web"), web);
        assert_eq!(in_passwd(PASSWD, "1001"), web);
        assert_eq!(in_passwd(PASSWD, "nobody"), None);
    }
}
