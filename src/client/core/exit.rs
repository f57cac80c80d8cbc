//! Exit codes: what scripts learn from the client.

use crate::wire::ErrorCode;

/// All that was asked for is done.
pub const DONE: u8 = 0;
/// It failed for a reason that has no code of its own.
pub const FAILED: u8 = 1;
/// The arguments are not as they should be; nothing was tried.
pub const BAD_ARGUMENTS: u8 = 2;
/// There is no server, or what answers is none.
pub const CANNOT_CONNECT: u8 = 3;
/// The server does not let us: the name, the right.
pub const REFUSED: u8 = 4;
/// No such user, file or folder.
pub const NOT_FOUND: u8 = 5;
/// It took longer than it may.
pub const TIMED_OUT: u8 = 6;
/// `run` could not do its part, whatever the reason: any other code is the command's.
pub const RUN_FAILED: u8 = 255;

/// The code for an error that the server has named.
pub fn of_error(code: ErrorCode) -> u8 {
    use ErrorCode::*;
    match code {
        UnknownCommand | BadArguments | BadText | BadJson | BadName | BadPath | TextTooLong
        | LineTooLong | TooMany | BadSamples | UnknownOperation => BAD_ARGUMENTS,
        Protocol | NotSupported => CANNOT_CONNECT,
        NotNamed | NameTaken | LoginRequired | LoginFailed | Blocked | Replaced | AlreadyNamed
        | Denied | PermissionDenied | ReadOnly | Refused => REFUSED,
        NoSuchUser | NoSuchFile | NotAFile | NotAFolder | NoSuchOffer | NoSuchData => NOT_FOUND,
        TimedOut => TIMED_OUT,
        Cancelled | PeerBusy | PeerGone | NotDelivered | IdInUse | FileChanged | NotVerified
        | NoSpace | QuotaExceeded | FileTooLarge | NameTooLong | SystemError | CannotStart
        | Internal | Busy | NoInterpreter | ShuttingDown | Reset | SlowConsumer | NotJoined => {
            FAILED
        }
    }
}

/// The code of something that the signal `number` ended, as shells have it.
pub fn of_signal(number: i32) -> u8 {
    u8::try_from(number).ok().and_then(|number| number.checked_add(128)).unwrap_or(RUN_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_codes_that_scripts_test_for() {
        for (error, code) in [
            (ErrorCode::NoSuchUser, 5),
            (ErrorCode::NoSuchFile, 5),
            (ErrorCode::NameTaken, 4),
            (ErrorCode::Denied, 4),
            (ErrorCode::TimedOut, 6),
            (ErrorCode::BadPath, 2),
            (ErrorCode::PeerBusy, 1),
            (ErrorCode::NotSupported, 3),
        ] {
            assert_eq!(of_error(error), code, "{error}");
        }
    }

    #[test]
    fn signals_are_counted_from_128_as_shells_do() {
        assert_eq!((of_signal(15), of_signal(9), of_signal(64)), (143, 137, 192));
        assert_eq!((of_signal(-1), of_signal(128), of_signal(9999)), (255, 255, 255));
    }
}
