//! The state folder: keys, and pins of keys. Never inside what is served.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use etcetera::base_strategy::Xdg;

/// The folder below that of all programs.
const NAME: &str = "sixfour";

/// Where a server keeps its state: what was `given`, or what systemd says (systemd.exec(5),
/// `STATE_DIRECTORY`), or the place for it in the user's home.
///
/// # Errors
/// None of them is known; a sentence.
pub fn of_server(given: Option<&Path>) -> Result<PathBuf, String> {
    let by_systemd = std::env::var_os("STATE_DIRECTORY").filter(|path| !path.is_empty());
    // There may be several, with colons between them.
    let first = |paths| std::env::split_paths(&paths).next();
    match (given, by_systemd.and_then(first)) {
        (None, Some(path)) => Ok(path),
        (given, _) => of_client(given),
    }
}

/// Where a client keeps its state: what was `given`, or the place for it in the user's home (XDG
/// Base Directory Specification, `XDG_STATE_HOME`).
///
/// # Errors
/// Neither is known; a sentence.
pub fn of_client(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let home = Xdg::new().ok().and_then(|xdg| xdg.state_dir());
    home.map(|home| home.join(NAME)).ok_or_else(|| {
        "there is no state folder, as this account has no home; name one with --state DIR".into()
    })
}

/// Makes the folder if it is not there, for its owner alone.
///
/// # Errors
/// A sentence: it cannot be made, or others may write to it.
pub fn prepare(folder: &Path) -> Result<(), String> {
    let failed = |error: io::Error| {
        format!(
            "the state folder {} cannot be used: {error}; --state DIR names another",
            show(folder)
        )
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let metadata = fs::metadata(folder).map_err(failed)?;
    match is_safe(&metadata) {
        Ok(()) => Ok(()),
        Err(why) => Err(format!(
            "the state folder {} is not safe, as {why}; run chmod 700 on it, or name another with \
             --state DIR",
            show(folder)
        )),
    }
}

/// Whether nobody but its owner, who is us or root, may change the file or folder; else why not.
///
/// # Errors
/// The half of a sentence.
pub fn is_safe(metadata: &fs::Metadata) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != own && owner != 0 {
        return Err(format!("it belongs to user {owner}"));
    }
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(format!("others may write to it (mode {mode:o})")),
    }
}

/// Whether `path` is `folder`, or below it, by whatever name: the folders above it are compared.
///
/// # Errors
/// One of them cannot be looked at.
pub fn is_within(path: &Path, folder: &Path) -> io::Result<bool> {
    let identity = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino()));
    let folder = identity(folder)?;
    for above in path.canonicalize()?.ancestors() {
        if identity(above)? == folder {
            return Ok(true);
        }
    }
    Ok(false)
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_given_goes_before_all() {
        let given = Path::new("/elsewhere/state");
        assert_eq!(of_client(Some(given)).unwrap(), given);
        assert_eq!(of_server(Some(given)).unwrap(), given);
    }

    #[test]
    fn the_folder_is_made_for_its_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a").join("b");
        prepare(&folder).unwrap();
        for made in [&folder, &place.path().join("a")] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
        }
        prepare(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let place = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
            let told = prepare(place.path()).unwrap_err();
            assert!(told.contains("others may write") && told.contains("--state"), "{told}");
        }
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        prepare(place.path()).unwrap();
        let file = place.path().join("file");
        fs::write(&file, b"").unwrap();
        let told = prepare(&file).unwrap_err();
        assert!(told.contains("cannot be used"), "{told}");
    }

    #[test]
    fn what_lies_below_a_folder_is_told_by_whatever_name() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        prepare(&path("share/state")).unwrap();
        prepare(&path("other")).unwrap();
        std::os::unix::fs::symlink(path("share"), path("link")).unwrap();
        for (inner, outer, within) in [
            ("share/state", "share", true),
            ("share", "share", true),
            ("link/state", "share", true),
            ("share/state", "link", true),
            ("share/../share/state", "other/../share", true),
            ("share", "share/state", false),
            ("other", "share", false),
        ] {
            assert_eq!(is_within(&path(inner), &path(outer)).unwrap(), within, "{inner} {outer}");
        }
        assert!(is_within(&path("missing"), &path("share")).is_err());
    }
}
