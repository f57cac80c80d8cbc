//! Whole numbers of any length, by the rules of school: the model for what is computed.

use std::cmp::Ordering;

/// A number: its sign, and its decimal digits, the lowest first and none of them a leading zero.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Big {
    is_negative: bool,
    digits: Vec<u8>,
}

impl Big {
    pub fn zero() -> Big {
        Big { is_negative: false, digits: vec![] }
    }

    pub fn parse(text: &str) -> Big {
        let digits = text.trim_start_matches('-');
        let digits = digits.bytes().rev().map(|digit| digit - b'0').collect();
        Big { is_negative: text.starts_with('-'), digits }.trimmed()
    }

    fn trimmed(mut self) -> Big {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        self.is_negative &= !self.digits.is_empty();
        self
    }

    fn compare_digits(&self, other: &Big) -> Ordering {
        let by_length = self.digits.len().cmp(&other.digits.len());
        by_length.then_with(|| self.digits.iter().rev().cmp(other.digits.iter().rev()))
    }

    pub fn compare(&self, other: &Big) -> Ordering {
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_digits(other),
            (true, true) => other.compare_digits(self),
        }
    }

    pub fn add(&self, other: &Big) -> Big {
        if self.is_negative == other.is_negative {
            let (mut digits, mut carry) = (vec![], 0);
            for at in 0..self.digits.len().max(other.digits.len()) + 1 {
                let digit = |of: &Big| of.digits.get(at).copied().unwrap_or(0);
                let sum = digit(self) + digit(other) + carry;
                digits.push(sum % 10);
                carry = sum / 10;
            }
            return Big { is_negative: self.is_negative, digits }.trimmed();
        }
        let (large, small) = match self.compare_digits(other) {
            Ordering::Less => (other, self),
            _ => (self, other),
        };
        let (mut digits, mut borrow) = (vec![], 0);
        for (at, digit) in large.digits.iter().enumerate() {
            let less = small.digits.get(at).copied().unwrap_or(0) + borrow;
            borrow = u8::from(*digit < less);
            digits.push(digit + 10 * borrow - less);
        }
        Big { is_negative: large.is_negative, digits }.trimmed()
    }

    /// Its quotient by `count` with six decimals, rounded to the nearest, halves away from zero.
    pub fn average(&self, count: usize) -> String {
        let (mut quotient, mut rest) = (vec![], 0);
        let zeros = [0; 6];
        for digit in self.digits.iter().rev().chain(&zeros) {
            rest = rest * 10 + usize::from(*digit);
            quotient.push((rest / count) as u8);
            rest %= count;
        }
        quotient.reverse();
        let mut quotient = Big { is_negative: false, digits: quotient };
        if 2 * rest >= count {
            quotient = quotient.add(&Big::parse("1"));
        }
        quotient.digits.resize(quotient.digits.len().max(7), 0);
        let is_zero = quotient.digits.iter().all(|digit| *digit == 0);
        while quotient.digits.len() > 7 && quotient.digits.last() == Some(&0) {
            quotient.digits.pop();
        }
        let text: String =
            quotient.digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect();
        let (whole, decimals) = text.split_at(text.len() - 6);
        let sign = if self.is_negative && !is_zero { "-" } else { "" };
        format!("{sign}{whole}.{decimals}")
    }
}

impl std::fmt::Display for Big {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_negative {
            formatter.write_str("-")?;
        }
        if self.digits.is_empty() {
            return formatter.write_str("0");
        }
        self.digits.iter().rev().try_for_each(|digit| write!(formatter, "{digit}"))
    }
}
