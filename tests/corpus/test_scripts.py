"""Good prose of every script passes the default rules, bad text of the same scripts does not, and what Unicode says of
characters is what is written down here."""

import re
import unicodedata
from dataclasses import asdict

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from trivium.corpus import scripts
from trivium.corpus.duplicates import DuplicateSettings, shingles, text_digest
from trivium.corpus.languages import LanguageSettings, identify
from trivium.corpus.quality import check, chosen
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.steps import Tally, _Judge
from trivium.corpus.words import PLAIN_WORD, characters_a_word, plain_hashes, plain_words, visible, words

GOOD = {  # the same story of a grandmother by the river, written for this test
    "am": "አያቴ በወንዝ ዳር በምትገኝ ትንሽ ቤት ውስጥ ትኖራለች። በየቀኑ ጠዋት ሻይ ትጠጣለች እና ጀልባዎችን ትመለከታለች። ከሰዓት በኋላ የጎረቤት ልጆች ወደ እርሷ "
          "ይመጣሉ። እርሷም የቆዩ ተረቶችን ትነግራቸዋለች። እንዲህ ያለ ተረት ሰምታችሁ ታውቃላችሁ? ልጆቹ በጸጥታ ተቀምጠው ያዳምጣሉ ከዚያም ለመጫወት ይሄዳሉ። ማታ አያቴ "
          "ፋኖስ ታበራለች። ያን ጊዜ ቤቱ ሁሉ በብርሃን ይሞላል።",
    "ar": "أين تسكن جدتك العجوز؟ هل تسكن في بيت صغير قرب النهر؟ ماذا تشرب جدتك كل صباح؟ هل تحب أن تنظر إلى "
          "القوارب الكبيرة والصغيرة؟ من يأتي إليها بعد الظهر من أولاد الجيران؟ وما هي القصص القديمة التي تحكيها "
          "لهم؟ هل يجلس الأولاد في هدوء ويستمعون إليها حتى المساء؟ ومتى تشعل الجدة المصباح الذي يملأ البيت كله "
          "بالضوء؟",
    "bn": "আমার দাদি নদীর ধারে একটি ছোট বাড়িতে থাকেন। প্রতিদিন সকালে তিনি চা খান আর নৌকা দেখেন। দুপুরে পাড়ার "
          "ছেলেমেয়েরা তাঁর কাছে আসে। তিনি তাদের পুরোনো গল্প শোনান। তুমি কি কখনো এমন গল্প শুনেছ? ছেলেমেয়েরা চুপ "
          "করে বসে শোনে, তারপর খেলতে চলে যায়। সন্ধ্যায় দাদি প্রদীপ জ্বালান। তখন সারা বাড়ি আলোয় ভরে যায়। "
          "রাতে সবাই একসঙ্গে ভাত খায় আর অনেক কথা বলে।",
    "de": "Meine Großmutter wohnt in einem kleinen Haus am Fluss, und jeden Morgen trinkt sie Tee. Mittags "
          "kommen die Kinder aus dem Dorf zu ihr.\n„Erzähl uns eine alte Geschichte.“\n„Aber nur eine.“\n„Die "
          "von dem Fährmann und dem Mond.“\nDann sitzen sie still und hören zu, bis es dunkel ist und Großmutter "
          "die Lampe anzündet, die das ganze Haus hell macht",
    "el": "Η γιαγιά μου μένει σε ένα μικρό σπίτι δίπλα στο ποτάμι. Κάθε πρωί πίνει τσάι και κοιτάζει τις βάρκες "
          "που περνούν. Ποιος δεν αγαπά τις παλιές ιστορίες; Ποιος δεν θέλει να τις ακούσει ξανά; Τα παιδιά "
          "κάθονται ήσυχα και ακούνε, και ύστερα πηγαίνουν να παίξουν στην αυλή. Το βράδυ η γιαγιά ανάβει τη "
          "λάμπα.",
    "fa": "مادربزرگ من در خانه‌ای کوچک کنار رودخانه زندگی می‌کند. هر روز صبح چای می‌نوشد و قایق‌ها را تماشا "
          "می‌کند. بعدازظهر بچه‌های همسایه پیش او می‌آیند. او برای آن‌ها داستان‌های قدیمی تعریف می‌کند. آیا تا "
          "به حال چنین داستانی شنیده‌اید؟ بچه‌ها آرام می‌نشینند و گوش می‌دهند و بعد برای بازی می‌روند. شب که "
          "می‌شود مادربزرگ چراغ را روشن می‌کند. آن وقت همه‌ی خانه پر از نور می‌شود.",
    "fi": "Isoäitini asuu pienessä talossa joen rannalla. Joka aamu hän juo teetä ja katselee veneitä. "
          "Iltapäivällä naapurin lapset tulevat hänen luokseen. Hän kertoo heille vanhoja tarinoita. Oletko "
          "koskaan kuullut sellaista tarinaa? Lapset istuvat hiljaa ja kuuntelevat, ja sitten he lähtevät "
          "leikkimään. Illalla isoäiti sytyttää lampun.",
    "gu": "મારી દાદી નદીના કિનારે એક નાના ઘરમાં રહે છે. રોજ સવારે તે ચા પીએ છે અને હોડીઓ જુએ છે. બપોરે પડોશનાં "
          "બાળકો તેમની પાસે આવે છે. તે તેમને જૂની વાર્તાઓ કહે છે. તમે ક્યારેય આવી વાર્તા સાંભળી છે? બાળકો "
          "શાંતિથી બેસીને સાંભળે છે અને પછી રમવા જાય છે. સાંજે દાદી દીવો પ્રગટાવે છે. ત્યારે આખું ઘર પ્રકાશથી "
          "ભરાઈ જાય છે.",
    "he": "סבתא שלי גרה בבית קטן ליד הנהר.\u200f בכל בוקר היא שותה תה ומסתכלת על הסירות.\u200f בצהריים באים אליה "
          "ילדי השכנים.\u200f היא מספרת להם סיפורים ישנים.\u200f האם שמעתם פעם סיפור כזה?\u200f הילדים יושבים "
          "בשקט ומקשיבים, ואחר כך הולכים לשחק בחצר.\u200f בערב סבתא מדליקה את המנורה. אז כל הבית מתמלא באור. "
          "בלילה כולם אוכלים ביחד ומדברים שעה ארוכה על הימים שעברו.\u200f",
    "hi": "मेरी दादी नदी के किनारे एक छोटे घर में रहती हैं। हर सुबह वे चाय पीती हैं और नावों को देखती हैं। दोपहर "
          "में पड़ोस के बच्चे उनके पास आते हैं। वे उन्हें पुरानी कहानियाँ सुनाती हैं। क्या आपने कभी ऐसी कहानी "
          "सुनी है? बच्चे चुपचाप बैठकर सुनते हैं और फिर खेलने चले जाते हैं। शाम को दादी दीया जलाती हैं। तब पूरा "
          "घर रोशनी से भर जाता है।",
    "hy": "Տատիկս ապրում է գետի ափին՝ մի փոքրիկ տան մեջ։ Ամեն առավոտ նա թեյ է խմում և նայում է նավակներին։ "
          "Կեսօրին հարևանների երեխաները գալիս են նրա մոտ։ Նա նրանց հին հեքիաթներ է պատմում։ Երեխաները լուռ "
          "նստում են ու լսում, հետո գնում են խաղալու։ Երեկոյան տատիկը վառում է լամպը։ Այդ ժամանակ ամբողջ տունը "
          "լցվում է լույսով։ Գիշերը բոլորը միասին ընթրում են և երկար զրուցում։",
    "ja": "祖母は川のそばの小さな家に住んでいます。毎朝お茶を飲みながら、舟をながめます。昼には近所の子ども"
          "たちがやって来ます。祖母は子どもたちに昔話をします。みんなは静かに聞いて、それから外へ遊びに行き"
          "ます。夕方になると、祖母はランプに火をともします。すると家じゅうが明るくなります。",
    "ka": "ბებიაჩემი პატარა სახლში ცხოვრობს მდინარის პირას. ყოველ დილით ის ჩაის სვამს და ნავებს უყურებს. "
          "შუადღისას მეზობლის ბავშვები მასთან მოდიან. ის მათ ძველ ზღაპრებს უყვება. გაგიგონიათ ოდესმე ასეთი "
          "ზღაპარი? ბავშვები ჩუმად სხედან და უსმენენ, მერე კი სათამაშოდ მიდიან. საღამოს ბებია ლამპას ანთებს. "
          "მაშინ მთელი სახლი სინათლით ივსება.",
    "km": "ជីដូនរបស់ខ្ញុំរស់នៅក្នុងផ្ទះតូចមួយនៅមាត់ទន្លេ។ រៀងរាល់ព្រឹក គាត់ផឹកតែ ហើយមើលទូក។ នៅពេលរសៀល "
          "ក្មេងៗមកលេងជាមួយគាត់។ គាត់និទានរឿងចាស់ៗឱ្យក្មេងៗស្តាប់។ នៅពេលល្ងាច គាត់អុជចង្កៀង "
          "ហើយផ្ទះទាំងមូលភ្លឺឡើង។",
    "ko": "할머니는 강가의 작은 집에 사십니다. 아침마다 차를 마시며 배를 바라보십니다. 낮에는 이웃 아이들이 "
          "할머니를 찾아옵니다. 할머니는 아이들에게 옛날이야기를 들려주십니다. 그런 이야기를 들어 본 적이 "
          "있나요? 아이들은 조용히 앉아서 듣다가 밖으로 놀러 나갑니다. 저녁이 되면 할머니는 등불을 켭니다. "
          "그러면 온 집이 밝아집니다.",
    "lo": "ແມ່ຕູ້ຂອງຂ້ອຍຢູ່ໃນເຮືອນຫຼັງນ້ອຍແຄມແມ່ນ້ຳ ທຸກເຊົ້າແມ່ຕູ້ດື່ມນ້ຳຊາ ແລະ ເບິ່ງເຮືອ "
          "ຕອນບ່າຍເດັກນ້ອຍມາຫາແມ່ຕູ້ ແມ່ຕູ້ເລົ່ານິທານໃຫ້ເດັກນ້ອຍຟັງ ຕອນແລງແມ່ຕູ້ໄຕ້ໂຄມໄຟ ແລະ ເຮືອນກໍແຈ້ງສະຫວ່າງ",
    "ml": "എന്റെ മുത്തശ്ശി പുഴയുടെ തീരത്തുള്ള ഒരു ചെറിയ വീട്ടിൽ താമസിക്കുന്നു. എല്ലാ ദിവസവും രാവിലെ മുത്തശ്ശി "
          "ചായ കുടിച്ചുകൊണ്ട് വള്ളങ്ങൾ നോക്കിയിരിക്കും. ഉച്ചയ്ക്ക് അയൽപക്കത്തെ കുട്ടികൾ വരും. മുത്തശ്ശി അവർക്ക് "
          "പഴയ കഥകൾ പറഞ്ഞുകൊടുക്കും. കുട്ടികൾ മിണ്ടാതിരുന്ന് കേൾക്കും, പിന്നെ കളിക്കാൻ പോകും. വൈകുന്നേരം "
          "മുത്തശ്ശി വിളക്ക് കൊളുത്തും. അപ്പോൾ വീട് മുഴുവൻ പ്രകാശം നിറയും.",
    "my": "အဘွားသည် မြစ်ကမ်းနားရှိ အိမ်ငယ်လေးတွင် နေသည်။ မနက်တိုင်း လက်ဖက်ရည်သောက်ပြီး လှေများကို ကြည့်သည်။ "
          "နေ့လယ်တွင် ကလေးများ အဘွားထံ လာကြသည်။ အဘွားက ပုံပြင်ဟောင်းများကို ပြောပြသည်။ ညနေတွင် အဘွားက မီးအိမ်ကို "
          "ထွန်းသည်။ ထိုအခါ တစ်အိမ်လုံး လင်းသွားသည်။",
    "pa": "ਮੇਰੀ ਦਾਦੀ ਨਦੀ ਦੇ ਕੰਢੇ ਇੱਕ ਛੋਟੇ ਘਰ ਵਿੱਚ ਰਹਿੰਦੀ ਹੈ। ਹਰ ਸਵੇਰ ਉਹ ਚਾਹ ਪੀਂਦੀ ਹੈ ਅਤੇ ਬੇੜੀਆਂ ਵੇਖਦੀ ਹੈ। ਦੁਪਹਿਰ "
          "ਨੂੰ ਗੁਆਂਢ ਦੇ ਬੱਚੇ ਉਸ ਕੋਲ ਆਉਂਦੇ ਹਨ। ਉਹ ਉਨ੍ਹਾਂ ਨੂੰ ਪੁਰਾਣੀਆਂ ਕਹਾਣੀਆਂ ਸੁਣਾਉਂਦੀ ਹੈ। ਬੱਚੇ ਚੁੱਪ ਕਰਕੇ ਬੈਠਦੇ "
          "ਹਨ ਅਤੇ ਸੁਣਦੇ ਹਨ। ਸ਼ਾਮ ਨੂੰ ਦਾਦੀ ਦੀਵਾ ਜਗਾਉਂਦੀ ਹੈ। ਫਿਰ ਸਾਰਾ ਘਰ ਰੌਸ਼ਨੀ ਨਾਲ ਭਰ ਜਾਂਦਾ ਹੈ।",
    "ru": "Моя бабушка живёт в маленьком доме на берегу реки. Каждое утро она пьёт чай и смотрит на лодки. Днём "
          "к ней приходят соседские дети. Она рассказывает им старые сказки. Слышали вы когда-нибудь такую "
          "сказку? Дети тихо сидят и слушают, а потом идут играть. Вечером бабушка зажигает лампу. Тогда весь "
          "дом наполняется светом, и становится уютно и тепло.",
    "sw": "Bibi yangu anaishi katika nyumba ndogo kando ya mto. Kila asubuhi anakunywa chai na kutazama mashua. "
          "Mchana watoto wa jirani huja kwake. Yeye huwasimulia hadithi za zamani. Je, umewahi kusikia hadithi "
          "kama hiyo? Watoto hukaa kimya na kusikiliza, kisha huenda kucheza. Jioni bibi huwasha taa. Hapo "
          "nyumba yote hujaa mwanga.",
    "ta": "என் பாட்டி ஆற்றங்கரையில் ஒரு சிறிய வீட்டில் வசிக்கிறார். தினமும் காலையில் தேநீர் குடித்துக்கொண்டே "
          "படகுகளைப் பார்ப்பார். மதியம் பக்கத்து வீட்டுக் குழந்தைகள் அவரிடம் வருவார்கள். அவர் அவர்களுக்குப் பழைய "
          "கதைகளைச் சொல்வார். நீங்கள் எப்போதாவது அப்படி ஒரு கதையைக் கேட்டிருக்கிறீர்களா? குழந்தைகள் அமைதியாக "
          "உட்கார்ந்து கேட்பார்கள். மாலையில் பாட்டி விளக்கு ஏற்றுவார். அப்போது வீடு முழுவதும் ஒளி "
          "நிறைந்திருக்கும்.",
    "te": "మా అమ్మమ్మ నది ఒడ్డున ఒక చిన్న ఇంట్లో ఉంటుంది. ప్రతి ఉదయం ఆమె టీ తాగుతూ పడవలను చూస్తుంది. మధ్యాహ్నం "
          "పక్కింటి పిల్లలు ఆమె దగ్గరకు వస్తారు. ఆమె వారికి పాత కథలు చెబుతుంది. మీరు ఎప్పుడైనా అలాంటి కథ "
          "విన్నారా? పిల్లలు నిశ్శబ్దంగా కూర్చుని వింటారు. సాయంత్రం అమ్మమ్మ దీపం వెలిగిస్తుంది. అప్పుడు ఇల్లంతా "
          "వెలుగుతో నిండిపోతుంది.",
    "th": "ยายของฉันอยู่ในบ้านหลังเล็กริมแม่น้ำ ทุกเช้ายายดื่มชาและมองดูเรือ ตอนบ่ายเด็ก ๆ ข้างบ้านมาหายาย "
          "ยายเล่านิทานเก่า ๆ ให้เด็กฟัง เด็ก ๆ นั่งฟังเงียบ ๆ แล้วออกไปวิ่งเล่น ตอนเย็นยายจุดตะเกียง "
          "แล้วทั้งบ้านก็สว่างไสว",
    "tr": "Büyükannem nehrin kıyısındaki küçük bir evde yaşıyor. Her sabah çay içer ve kayıkları seyreder. "
          "Öğleden sonra komşunun çocukları ona gelir. O da onlara eski masallar anlatır. Siz hiç böyle bir "
          "masal dinlediniz mi? Çocuklar sessizce oturup dinler, sonra oynamaya giderler. Akşam olunca "
          "büyükannem lambayı yakar.",
    "ur": "میری دادی دریا کے کنارے ایک چھوٹے گھر میں رہتی ہیں۔ ہر صبح وہ چائے پیتی ہیں اور کشتیوں کو دیکھتی ہیں۔ "
          "دوپہر کو محلے کے بچے ان کے پاس آتے ہیں۔ وہ انہیں پرانی کہانیاں سناتی ہیں۔ کیا آپ نے کبھی ایسی کہانی "
          "سنی ہے؟ بچے خاموشی سے بیٹھ کر سنتے ہیں اور پھر کھیلنے چلے جاتے ہیں۔ شام کو دادی چراغ جلاتی ہیں۔ تب "
          "سارا گھر روشنی سے بھر جاتا ہے۔",
    "vi": "Bà tôi ở một ngôi nhà nhỏ bên bờ sông. Sáng nào bà cũng uống trà và nhìn những con thuyền. Buổi trưa "
          "trẻ con trong xóm đến chơi với bà. Bà kể cho chúng nghe những câu chuyện ngày xưa. Bạn đã bao giờ "
          "nghe chuyện như thế chưa? Lũ trẻ ngồi im lắng nghe rồi chạy ra sân chơi. Tối đến bà thắp đèn lên. Cả "
          "nhà đầy ánh sáng.",
    "zh": "奶奶住在河边的一座小房子里。每天早上，她一边喝茶，一边看河上的小船。到了中午，邻居家的孩子们都来"
          "找她。她给孩子们讲从前的故事，大家安安静静地听着，然后跑到外面去玩。天黑的时候，奶奶点起一盏灯，"
          "整个屋子就亮了起来。",
}
TIBETAN = ("ངའི་རྨོ་མོ་ཆུ་འགྲམ་གྱི་ཁང་པ་ཆུང་ཆུང་ཞིག་ཏུ་བཞུགས་ཀྱི་ཡོད། ཞོགས་པ་རེ་རེ་ལ་ཇ་མཆོད་ཀྱི་ཡོད། ཉིན་གུང་ལ་ཕྲུ་གུ་ཚོ་ཁོང་གི་རྩར་ཡོང་གི་ཡོད། "
           "ཁོང་གིས་སྒྲུང་རྙིང་པ་བཤད་ཀྱི་ཡོད། དགོང་མོ་མར་མེ་སྤར་གྱི་ཡོད། དེ་ནས་ཁང་པ་ཡོངས་རྫོགས་དཀར་པོ་ཆགས་ཀྱི་ཡོད།")


def judged(text):
    """``(language, why it is rejected, the text as it goes on)`` by the stage's own steps."""
    settings = CorpusSettings()
    judge = _Judge({
        "language": asdict(settings.language), "rules": chosen(settings.rules, settings.without), "filters": [],
        "thresholds": {code: asdict(value) for code, value in settings.thresholds_of().items()}, "filter_limits": {},
        "seed": 0, "harmful": False}, [])
    row, tally = {"id": "1", "text": text, "source": "test"}, Tally()
    kept = judge.keeps(row, tally)
    return row["language"], None if kept else tally.rejects[0]["reason"], row["text"]


@pytest.mark.parametrize("code", GOOD)
def test_good_prose_is_kept_as_it_is_written(code):
    assert judged(GOOD[code]) == (code, None, GOOD[code])


def test_tibetan_is_kept_though_it_is_told_as_its_neighbour():
    assert judged(TIBETAN)[1:] == (None, TIBETAN)


def test_the_same_marks_typed_on_other_keyboards():
    assert judged(GOOD["hi"].replace("।", " |"))[1] is None
    assert judged(GOOD["hy"].replace("։", ":"))[1] is None
    assert judged(GOOD["am"].replace("።", "፡፡").replace(" ", "፡"))[1] is None
    assert judged(GOOD["ja"].replace("。", "．"))[1] is None


LIST = {
    "bn": "আম জাম কলা লিচু পেঁপে কাঁঠাল পেয়ারা তরমুজ আনারস বেদানা", "ar": "تفاح موز عنب تمر رمان تين خوخ مشمش برتقال ليمون",
    "ru": "яблоко груша слива вишня малина черника клубника арбуз дыня персик", "th": "กล้วย ส้ม มะม่วง ทุเรียน องุ่น",
    "ko": "사과 배 포도 수박 딸기 참외 복숭아 자두 감 귤", "hi": "सेब केला आम अंगूर अनार पपीता अमरूद संतरा नींबू लीची",
    "am": "ሙዝ ብርቱካን ማንጎ ፓፓያ ሎሚ አናናስ አቮካዶ ወይን ዘይቱን ኮክ", "he": "תפוח אגס ענב תמר רימון תאנה אפרסק משמש תפוז לימון",
}


@pytest.mark.parametrize("code", LIST)
def test_lists_repeated_lines_and_menus_are_rejected_in_every_script(code):
    fruits = LIST[code].split()
    assert judged(" ".join(fruits * 8))[1] is not None
    assert judged("\n".join(fruits * 3))[1] is not None
    assert judged("\n".join([GOOD[code], *[f"{fruits[0]} {fruits[1]} {fruits[2]}. {fruits[3]}"] * 6]))[1] is not None
    unpunctuated = re.sub(f"[{scripts.CLAUSE_TERMINAL}.,!?;\\s]+", " " if code != "th" else "", GOOD[code])
    assert judged(unpunctuated)[1] is not None
    assert judged(" ".join(GOOD[code].replace(" ", "")))[1] is not None or code == "th"  # letter by letter


def test_running_text_of_an_unknown_language_is_told_from_a_list():
    made_up = ("Ma weko li tanu ra sopi, ma nuri ke tanu bo lafi. Li weko ra mesi, ke bo nuri ma sopi li rano. Tanu ma "
               "lafi ke weko, ra bo mesi li nuri ma tanu. Sopi ke rano bo weko, ma li lafi ra nuri. Ke mesi ma tanu bo "
               "rano, li sopi ra weko ma lafi. Bo nuri ke rano ma mesi li tanu.")
    thresholds = CorpusSettings().thresholds_of()
    rule = ["gopher_quality.stop_words"]
    assert check(made_up, rule, thresholds["und"]) is None and check(made_up, rule, thresholds["sw"]) is None
    assert check(made_up, rule, thresholds["en"]) is not None
    distinct = " ".join(f"{first}{second}ra" for first in ("ma", "we", "li", "ta", "so", "nu", "ke") for second in (
        "pi", "fa", "go", "du", "ne", "xo", "va", "zi"))
    assert check(distinct, rule, thresholds["und"]) is not None and check(distinct, rule, thresholds["sw"]) is not None


def test_a_threshold_that_is_set_holds_for_every_language():
    set_by_hand = CorpusSettings(thresholds=type(CorpusSettings().thresholds)(min_words=500))
    assert all(of.min_words == 500 for of in set_by_hand.thresholds_of().values())
    assert CorpusSettings().thresholds_of()["ko"].min_words == 30


def test_languages_that_differ_in_little_share_a_probability():
    text = ("Semua orang dilahirkan merdeka dan mempunyai martabat yang sama. Mereka dikaruniai akal dan hati, dan "
            "hendaknya bergaul satu sama lain dengan baik.")
    assert identify(text, LanguageSettings())[0] in ("id", "ms")


# what two versions of one text have in common


@pytest.mark.parametrize(
    "mark", ["\u00ad", "\u200b", "\u200c", "\u2060", "\ufeff", "\u034f", "\ufe0f", "\u180e", "\U000e0041", "\x08"])
def test_unseen_characters_hide_nothing(mark):
    text = "the capital city of the small mountain country that lies between two rivers"
    hidden = text.replace("capital", f"cap{mark}ital").replace("country", f"{mark}coun{mark}try{mark}")
    assert plain_words(hidden) == plain_words(text)
    assert [visible(match.group().lower()) for match in PLAIN_WORD.finditer(hidden)] == plain_words(text)
    assert text_digest(hidden) == text_digest(text)
    one, other = (set(shingles(version, hashes, DuplicateSettings().run).tolist())
                  for version, hashes in zip((text, hidden), plain_hashes([text, hidden]), strict=True))
    assert one == other
    for script in ("fa", "hi", "zh", "th"):
        assert plain_words(GOOD[script].replace(" ", f"{mark} ")) == plain_words(GOOD[script])


def test_words_keep_their_vowels_and_joiners_do_not_part_them():
    assert plain_words("हिन्दी की किताबें") == ["हिन्दी", "की", "किताबें"]
    assert plain_words("می‌نویسد آن‌ها") == ["مینویسد", "آنها"]  # joiners gone in the comparison form only
    assert plain_words("cafe\u0301") == plain_words("CAFÉ") == ["café"]
    assert plain_words("ที่นี่ 3 คน") == ["ที่", "นี่"[:1] + "ี่", "3", "ค", "น"]


@given(st.lists(st.sampled_from(
    ["हि", "न्दी", "می", "\u200c", "ก", "ิ", "a", "é", "\u0301", "中", " ", ".", "\u00ad", "1", "_"])))
def test_words_found_in_place_are_the_plain_ones(parts):
    """Passages are cut out where these stand, so both ways must find the same words, in number and form."""
    text = unicodedata.normalize("NFKC", "".join(parts)).casefold()
    assert [visible(match.group()) for match in PLAIN_WORD.finditer(text)] == PLAIN_WORD.findall(visible(text))


def test_words_by_script():
    assert words("ልጆቹ፡በጸጥታ፡ተቀምጠው።") == ["ልጆቹ", "በጸጥታ", "ተቀምጠው።"]
    assert [characters_a_word(GOOD[code]) for code in ("en", "de", "zh", "ja", "th", "my", "km", "lo") if code in GOOD
            ] == [1, 2, 2, 4, 4, 4, 4] and characters_a_word(TIBETAN) == 4


# Unicode itself


@pytest.mark.parametrize(("table", "properties"), [
    (scripts.SENTENCE_TERMINAL, r"\p{Sentence_Terminal}"), (scripts.CLAUSE_TERMINAL, r"\p{Terminal_Punctuation}"),
    (scripts.CLOSING, r"[\p{Pe}\p{Pf}\p{Pi}]"), (scripts.MARKS, r"\p{M}"),
    (scripts.INVISIBLE, r"(?V1)[[\p{Cf}\p{Default_Ignorable_Code_Point}\p{Cc}]--\s--[\x1c-\x1f]]"),
], ids=["sentences", "clauses", "closing", "marks", "invisible"])
def test_the_tables_are_unicodes(table, properties):
    """For all characters that this version of Python knows."""
    held, pattern = scripts.characters(table), regex.compile(properties)
    ascii_too = table is scripts.INVISIBLE
    for code in range(0 if ascii_too else 128, 0x110000):
        character = chr(code)
        if unicodedata.category(character) not in ("Cn", "Cs"):
            assert (character in held) == bool(pattern.match(character)), hex(code)


def test_scripts_that_need_a_dictionary_have_no_spaces():
    unspaced, pattern = re.compile(f"[{scripts.UNSPACED}]"), regex.compile(
        r"[\p{Line_Break=Complex_Context}\p{Han}\p{Hiragana}\p{Katakana}\p{Yi}\p{Tibetan}]")
    missed = [hex(code) for code in range(0x0e00, 0x10000) if not 0xd800 <= code < 0xe000 and chr(code).isalpha()
              and pattern.match(chr(code)) and not unspaced.match(chr(code))]
    assert missed == []
