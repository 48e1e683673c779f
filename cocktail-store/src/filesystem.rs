//! Which file systems a data dir may lie on.
//!
//! A network file system is refused: its locks can be lost without notice, and two Managers would then act on one store.
//! FUSE is refused only where its subtype says that a network or an object store is behind it: local ones (NTFS, the
//! overlay of rootless containers, the shared folders of virtual machines) have the locks of this kernel.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// File systems whose type alone says that they are remote.
const NETWORK: [(u32, &str); 14] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x517b, "SMB"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x564c, "NCP"),
    (0x1980_0202, "BeeGFS"),
    (0xaad7_aaea, "PanFS"),
];

const FUSE: u32 = 0x6573_5546;

/// FUSE file systems with a network or an object store behind them, by the start of their subtype.
const NETWORK_FUSE: [&str; 19] = [
    "sshfs",
    "s3fs",
    "s3ql",
    "goofys",
    "mountpoint-s3",
    "geesefs",
    "gcsfuse",
    "blobfuse",
    "rclone",
    "davfs",
    "curlftpfs",
    "glusterfs",
    "ceph",
    "juicefs",
    "seaweedfs",
    "moosefs",
    "mfs",
    "nfs",
    "smbnetfs",
];

/// The name of the network file system that `path` lies on, if it does.
pub(crate) fn network(path: &Path) -> io::Result<Option<String>> {
    // The type is a word whose width differs between machines; the numbers above are 32 bits everywhere.
    let kind = rustix::fs::statfs(path)?.f_type as u32;
    if kind == FUSE {
        let device = fs::metadata(path)?.dev();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        return Ok(network_fuse(&mounts, device));
    }
    Ok(NETWORK.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| (*name).to_owned()))
}

/// The type of the mount with that device number, where it is a remote FUSE.
fn network_fuse(mountinfo: &str, device: u64) -> Option<String> {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if before.split(' ').nth(2)? != device {
            return None;
        }
        let kind = after.split(' ').next()?;
        let subtype = kind.strip_prefix("fuse.")?;
        NETWORK_FUSE.iter().any(|name| subtype.starts_with(name)).then(|| kind.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
29 1 254:0 / / rw,relatime - ext4 /dev/vda rw
90 29 0:52 / /mnt/a rw,nosuid shared:9 - fuse.sshfs me@host:/ rw,user_id=0
91 29 0:53 / /mnt/b rw,nosuid - fuse.fuse-overlayfs overlay rw
";

    #[test]
    fn a_folder_of_this_machine_is_no_network_file_system() {
        assert_eq!(network(Path::new("/")).unwrap(), None);
    }

    #[test]
    fn fuse_is_judged_by_its_subtype() {
        let device = |minor| rustix::fs::makedev(0, minor);
        assert_eq!(network_fuse(MOUNTS, device(52)).as_deref(), Some("fuse.sshfs"));
        assert_eq!(network_fuse(MOUNTS, device(53)), None);
        assert_eq!(network_fuse(MOUNTS, device(54)), None);
    }
}
