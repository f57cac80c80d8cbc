//! Finding programs by their names, as a shell would.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

/// Where programs usually are, for a server that was started without `PATH`.
pub(super) const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The folders of this process's `PATH`.
#[must_use]
pub fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into())
}

/// The first file of this name in the folders of `path` that may be executed. Folders that are not
/// absolute do not count: what a peer has put where a command starts is not to be found there.
#[must_use]
pub fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    let mut folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| is_executable(file)))
}

fn is_executable(file: &Path) -> bool {
    let may = rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    may && file.is_file()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_executable_file_of_the_name_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let put = |relative: &str, mode: u32| {
            let path = folder.path().join(relative);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        put("a/tool", 0o644);
        let second = put("b/tool", 0o755);
        put("c/tool", 0o755);
        fs::create_dir(folder.path().join("b/folder")).unwrap();
        let folders = ["a", "none", "b", "c"].map(|name| folder.path().join(name));
        let path = std::env::join_paths(folders).unwrap();
        assert_eq!(find("tool", &path), Some(second));
        assert_eq!(find("folder", &path), None);
        assert_eq!(find("no-such-tool", &path), None);
    }

    #[test]
    fn folders_that_depend_on_where_one_stands_do_not_count() {
        for path in [".", "", "::.", "target"] {
            assert_eq!(find("Cargo.toml", OsStr::new(path)), None, "{path:?}");
        }
        assert!(find("sh", &search_path()).is_some());
    }
}
