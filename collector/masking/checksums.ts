// The checks that tell a number of a person from a number: they leave one in ten (Luhn) to one in a hundred random ones.

/** ISO/IEC 7812: payment cards. `digits` holds nothing else. */
export function isLuhn(digits: string): boolean {
  let sum = 0
  for (let at = 0; at < digits.length; at++) {
    const value = digits.charCodeAt(digits.length - 1 - at) - 48
    const doubled = at % 2 === 1 ? value * 2 : value
    sum += doubled > 9 ? doubled - 9 : doubled
  }
  return sum % 10 === 0
}

/** ISO 13616: the first four signs moved behind the rest, letters as numbers from 10, modulo 97. */
export function isIban(iban: string): boolean {
  let remainder = 0
  for (const sign of iban.slice(4) + iban.slice(0, 4)) {
    const value = Number.parseInt(sign, 36)
    remainder = (remainder * (value > 9 ? 100 : 10) + value) % 97
  }
  return remainder === 1
}

/** Spain, DNI and NIE: the letter is the number modulo 23; X, Y and Z stand for 0, 1 and 2. */
export function isDni(dni: string): boolean {
  const number = Number(dni.slice(0, -1).replace(/^[XYZ]/, (sign) => String('XYZ'.indexOf(sign))))
  return 'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23] === dni.at(-1)
}

/** France, NIR: the last two digits are 97 less the rest modulo 97; the departments 2A and 2B count as 19 and 18. */
export function isNir(nir: string): boolean {
  const number = BigInt(nir.slice(0, 13).replace('2A', '19').replace('2B', '18'))
  return 97n - (number % 97n) === BigInt(nir.slice(13))
}

/** Brazil, CPF: two check digits modulo 11; eleven equal digits pass and are none. */
export function isCpf(cpf: string): boolean {
  const isRight = (length: number): boolean => {
    let sum = 0
    for (let at = 0; at < length; at++) sum += Number(cpf[at]) * (length + 1 - at)
    return ((sum * 10) % 11) % 10 === Number(cpf[length])
  }
  return !/^(\d)\1*$/.test(cpf) && isRight(9) && isRight(10)
}

const oddValues = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23]

/** Italy, codice fiscale: signs at odd places by a table, at even places by their own value, modulo 26. */
export function isCodiceFiscale(code: string): boolean {
  let sum = 0
  for (let at = 0; at < 15; at++) {
    const sign = code.charCodeAt(at)
    const value = sign >= 65 ? sign - 65 : sign - 48
    sum += at % 2 === 0 ? (oddValues[value] as number) : value
  }
  return code.charCodeAt(15) - 65 === sum % 26
}
