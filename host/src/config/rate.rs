//! So much in so long, as EMQ X writes it: `100,10s`.

use std::time::Duration;

use super::setting::{ByteSize, Setting};

/// `amount,duration`, both more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Per<T>(pub T, pub Duration);

fn parse<T: Setting>(text: &str) -> Option<Per<T>> {
    let (amount, per) = text.split_once(',')?;
    let per = Duration::parse(per.trim()).filter(|per| !per.is_zero())?;
    Some(Per(T::parse(amount.trim())?, per))
}

impl Setting for Per<usize> {
    const EXPECTED: &'static str = "a number and a duration such as 100,10s";
    fn parse(text: &str) -> Option<Self> {
        parse(text).filter(|Self(amount, _)| *amount > 0)
    }
}

impl Setting for Per<ByteSize> {
    const EXPECTED: &'static str = "a size and a duration such as 100KB,10s";
    fn parse(text: &str) -> Option<Self> {
        parse(text).filter(|Self(size, _)| size.0 > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_an_amount_and_a_duration() {
        assert_eq!(Per::<usize>::parse("10,1m"), Some(Per(10, Duration::from_secs(60))));
        let bytes = Per::<ByteSize>::parse("100KB, 10s");
        assert_eq!(bytes, Some(Per(ByteSize(102_400), Duration::from_secs(10))));
        for bad in ["10", "0,1s", "10,0s", "ten,1s", "10,", "1,2,3"] {
            assert_eq!(Per::<usize>::parse(bad), None, "{bad}");
        }
    }
}
